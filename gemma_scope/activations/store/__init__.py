"""Activations on the disk: captured once, read shuffled as often as needed."""

from gemma_scope.activations.store.capture import (
  capture_to_store as capture_to_store,
)
from gemma_scope.activations.store.capture import open_writer as open_writer
from gemma_scope.activations.store.errors import StoreError as StoreError
from gemma_scope.activations.store.layout import Layout as Layout
from gemma_scope.activations.store.reader import (
  SiteStatistics as SiteStatistics,
)
from gemma_scope.activations.store.reader import Store as Store
from gemma_scope.activations.store.store_rows import StoreRows as StoreRows
from gemma_scope.activations.store.verification import verify as verify
from gemma_scope.activations.store.writer import NewRows as NewRows
from gemma_scope.activations.store.writer import StoreWriter as StoreWriter
