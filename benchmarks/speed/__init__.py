"""Speed of pushforward beside its peers: `./dev bench`."""
