"""What a target says: `module:function=layer`, `module:Class.method=layer`, with globs in either name.

After the layer may stand what is declared of it: `pure`, `replayable`, `not-replayable`.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.instrumentors.module_names import WILDCARDS, is_matched
from otel_debugstore.instrumentors.recorders import RECORDERS, is_of_python
from otel_debugstore.layers import LAYERS, Layer

_PART: Final = r"[\w*?\[\]!-]+"
_TARGET: Final = re.compile(rf"\s*({_PART}(?:\.{_PART})*)\s*:\s*({_PART}(?:\.{_PART})*)\s*=\s*(\w+)((?:\s+[\w-]+)*)\s*")
_FORMS: Final = "MODULE:FUNCTION=LAYER or MODULE:CLASS.METHOD=LAYER, where * and ? stand for parts of names"
_DECLARED: Final[dict[str, dict[str, bool]]] = {
    "pure": {"pure": True},
    "replayable": {"replayable": True},
    "not-replayable": {"replayable": False},
}


class Target(NamedTuple):
    """Functions that are to be recorded, and as what."""

    module: str
    """A glob; `*` stands for dots too."""
    path: tuple[str, ...]
    """A glob for each name on the way from the module to the function."""
    layer: Layer
    text: str
    replayable: bool | None = None
    pure: bool | None = None

    def is_in(self, module: str) -> bool:
        """Return whether a module of this name may hold some; Python's library and recorders only if they are named."""
        is_written_out = WILDCARDS.isdisjoint(self.module.partition(".")[0])
        is_below_recording = module.partition(".")[0] in RECORDERS or is_of_python(module)
        return is_matched(module, (self.module,)) and (is_written_out or not is_below_recording)

    @property
    def is_glob(self) -> bool:
        """Whether it may stand for any number of functions, none included."""
        return not WILDCARDS.isdisjoint(self.module + ".".join(self.path))


def parse_target(text: str) -> Target:
    """Return what a target says.

    Raises:
        ConfigurationError: It can't be parsed, names no layer, or declares what there is not.
    """
    found = _TARGET.fullmatch(text)
    layer = next((known for known in LAYERS if found and known == found[3].lower()), None)
    words = found[4].lower().split() if found else []
    if found is None or layer is None or not _DECLARED.keys() >= set(words):
        raise ConfigurationError(
            f"Target {text!r} can't be used: it has to be {_FORMS}, and LAYER one of {', '.join(LAYERS)}, after which "
            f"{', '.join(_DECLARED)} may stand."
        )
    if found[1].partition(".")[0] in RECORDERS:
        raise ConfigurationError(f"Target {text!r} can't be used: recording itself runs on {found[1]}.")
    declared: dict[str, bool] = {}
    for word in words:
        declared |= _DECLARED[word]
    return Target(found[1], tuple(found[2].split(".")), layer, text.strip(), **declared)


def is_named(name: str, glob: str) -> bool:
    """Return whether a glob stands for a name; it stands for private ones only if it begins with `_`."""
    return name == glob or (fnmatchcase(name, glob) and (not name.startswith("_") or glob.startswith("_")))
