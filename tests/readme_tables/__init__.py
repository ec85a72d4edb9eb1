"""Generated tables of the documents, a module for each subject; `make_readme_tables.py` writes them."""
