"""A/B experiments in the running program: several implementations of one tool, and a verdict on them.

`define` is what users write; `experiment` sends each call to an `arm`; `assignment` and `draws` say which calls make a
pair and which keys go where; `seen` takes down how calls went; `evidence` is that in few numbers; `judge` says what it
means (by `rates` and `sequential`); `record` is what is kept, and `keeper` where, so that other processes know.
"""
