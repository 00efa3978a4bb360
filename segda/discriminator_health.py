"""Whether a discriminator still tells a segmenter something.

An adversarial loss has two dead ends. A discriminator that is always right is so far beyond what a segmenter can change in a step
that its gradient says little; one that is never surer than chance has none to give. Neither shows in the segmenter's losses, and
the training goes on as if there were no adaptation. Both show in the shares of the discriminator's outputs that are right, which
methods with a discriminator log for each domain.
"""

from collections.abc import Mapping, Sequence

# Names of what `segda.losses.adversarial.domain_accuracy` says, averaged between two reports.
ACCURACIES = ("train/discriminator_accuracy_source", "train/discriminator_accuracy_target")

PINNED = 0.99  # from here on, on both domains, nearly every output is right
CHANCE = 0.55  # up to here, in the mean of both domains, it knows nothing
LEARNED = 0.6  # mean of both domains that no discriminator without knowledge has over a report
LAST = 3  # reports that must agree


def discriminator_trouble(reports: Sequence[Mapping[str, float]]) -> str | None:
    """Return what is wrong with a discriminator at the end of a training, in one sentence, or None.

    The mean of both domains tells chance, not each by itself: who always says "source" is right on all of one domain and on none of
    the other.

    Args:
        reports: metrics of each report, the oldest first; those without the accuracies (methods without a discriminator) count for
            nothing.
    """
    known = [
        tuple(report[name] for name in ACCURACIES) for report in reports if all(name in report for name in ACCURACIES)
    ]
    last = known[-LAST:]
    if not last:
        return None
    means = [sum(pair) / len(pair) for pair in known]
    over = "at its only report" if len(last) == 1 else f"at its last {len(last)} reports"
    source, target = (f"{value:.1%}" for value in last[-1])
    figures = f"right on {source} of the source and {target} of the target"
    if all(min(pair) >= PINNED for pair in last):
        return (
            f"the discriminator was always right {over} ({figures}): the segmenter gets hardly any signal from it; a lower "
            "discriminator_optimizer.lr, a lighter discriminator or a larger weight of the adversarial loss may help"
        )
    if all(mean <= CHANCE for mean in means[-len(last) :]):
        if max(means) < LEARNED:
            return (
                f"the discriminator was at chance {over} and never better ({figures}): it has learned nothing that the segmenter "
                "could follow; a higher discriminator_optimizer.lr may help"
            )
        return (
            f"the discriminator was at chance {over}, after {max(means):.0%} ({figures}): it tells the domains apart no more; what "
            "it can see is aligned, and there is no further signal"
        )
    return None
