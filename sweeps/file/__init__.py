"""What a sweep file says: data, no judges."""
