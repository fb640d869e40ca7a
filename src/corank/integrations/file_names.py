"""The files that callbacks put into a trainer's checkpoint, beside those of the trainer."""

FORCE_FILE = "force.safetensors"
MASKS_FILE = "sparsifier.safetensors"
