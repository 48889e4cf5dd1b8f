"""How weights come to life. Nothing here is imported before a model is loaded."""
