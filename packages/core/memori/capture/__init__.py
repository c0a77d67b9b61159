"""Captured calls: which clients are listened to, what they said, and how that gets stored."""
