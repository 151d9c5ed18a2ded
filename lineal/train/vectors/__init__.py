"""What training word vectors needs beside the methods: options, and the corpus on disk."""
