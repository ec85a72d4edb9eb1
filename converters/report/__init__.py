"""Pages for people: what a network does on images, as one HTML file that needs no other."""
