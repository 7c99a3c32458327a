"""Offers a planned load by many processes, and puts together what they measured."""
