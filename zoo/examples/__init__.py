"""Files that commands show what they do on."""
