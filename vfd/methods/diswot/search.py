"""Registered parts of a search config: spaces, searchers and scorers, under the scope ``vfd``."""

from vfd.methods.diswot.listed_spaces import ConfigSpace, TimmSpace
from vfd.methods.diswot.scoring import StudentScorer
from vfd.methods.diswot.searchers import AgingEvolution, Evolution, Exhaustive, RandomSearch
from vfd.methods.diswot.spaces import CifarResNetSpace, NASBench201Space, PlainNetSpace
from vfd.methods.diswot.table import TableScorer
from vfd.registry import TASK_UTILS

SPACES = (CifarResNetSpace, NASBench201Space, PlainNetSpace, TimmSpace, ConfigSpace)
SEARCHERS = (Exhaustive, RandomSearch, AgingEvolution, Evolution)

for _part in (*SPACES, *SEARCHERS, StudentScorer, TableScorer):
    TASK_UTILS.register_module(module=_part)
