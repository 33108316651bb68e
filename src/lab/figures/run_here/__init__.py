"""The figure that computes (start page, Chapters 4, 5 and 7): shipped networks answer in the reader's browser."""
