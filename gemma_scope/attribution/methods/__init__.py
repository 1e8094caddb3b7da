"""Attribution methods, one a file: from a question to relevance by site."""
