"""Training of sparse dictionaries, from activations to folders.

    config = gs.training.preset("gemma_scope_2", ["resid_post[9]"], steps=9000)
    trained = gs.training.train(config, source, "runs/first")

`source` is a `RowSource`: `activations.shuffle_buffer.ModelRows` or
`activations.store.StoreRows`.
"""
