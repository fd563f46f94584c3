"""Arrays in, arrays out: artifacts, tokenizers and runtimes. No database here."""
