"""How the model that ships with miLLM is made: its text, its tokenizer, its training and its examination."""
