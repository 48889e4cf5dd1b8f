"""Where weights come from. Each file knows one place and brings its files to a folder."""
