"""Published data sets of described speech, read into the rows that a corpus is made of.

`read_entries` reads the tables of a data set (`tables`), maps their columns (`presets`), and finds the
sound of each row (`sound`); what a row lacks is said with file and line. Nothing is decoded here.
"""

from storage.importers.checking import Check, check
from storage.importers.entries import Entry, ImportProblem, read_entries
from storage.importers.presets import PRESETS, Preset
from storage.importers.settings import Columns, ImportSettings

__all__ = ["PRESETS", "Check", "Columns", "Entry", "ImportProblem", "ImportSettings", "Preset", "check", "read_entries"]
