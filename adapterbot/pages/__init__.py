"""What people read: an adapter's section, its figures and charts, and how words are made inert."""
