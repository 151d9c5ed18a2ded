"""From files to counts of pieces: parts of files, documents, counting by several processes."""
