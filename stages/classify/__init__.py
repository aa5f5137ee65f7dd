"""What models say of documents, and what others have said of them."""
