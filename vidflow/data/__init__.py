"""Where videos and captions come from: files, folders, batches."""
