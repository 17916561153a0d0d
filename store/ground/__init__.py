"""Stores on the ground: publish, sign, copy and collect missions, and put trust roots into effect."""
