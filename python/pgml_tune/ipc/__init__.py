"""What processes tell each other, through files and a socket."""
