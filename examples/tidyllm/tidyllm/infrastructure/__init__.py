"""What is around the chats."""
