"""What keeps a run from being lost: checkpoints, what may change, guards of the weights."""
