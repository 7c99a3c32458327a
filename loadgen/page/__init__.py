"""The report for people: one HTML file with everything in it, drawn by our own few lines of SVG."""
