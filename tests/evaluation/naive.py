"""Ranks by a naive loop, one query and one candidate at a time."""


def ranks_of_matrix(scores, tolerance=0.0):
    """Rank the diagonal of a (Q, N) matrix in its rows."""
    ranks = []
    for i, row in enumerate(scores.tolist()):
        distances = [score - row[i] for place, score in enumerate(row) if place != i]
        better = sum(distance > tolerance for distance in distances)
        ties = sum(abs(distance) <= tolerance for distance in distances)
        ranks.append(1 + better + ties / 2)
    return ranks
