"""Search for the best student of a teacher without training: what ``vfd search`` runs."""

from vfd.offline.search.ranking import SearchResult
from vfd.offline.search.run import search, verify_search

__all__ = ['SearchResult', 'search', 'verify_search']
