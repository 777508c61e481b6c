"""Item vectors from texts and pictures: a part for each (tfidf, precomputed, encoders), fused into one column."""
