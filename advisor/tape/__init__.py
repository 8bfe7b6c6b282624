"""What a dry run records, and what is made from it without torch: the stream, its repetition, its layout and its bytes by term."""
