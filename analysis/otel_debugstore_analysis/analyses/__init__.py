"""Analyses: a module each, whose one public function has the module's name. They are imported when they are used."""
