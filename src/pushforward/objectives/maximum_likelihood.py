"""Maximum likelihood."""

from torch import Tensor

from pushforward.objectives.base import Objective


class MaximumLikelihood(Objective):
    r"""$-\frac1n \sum_i w_i \log q(x_i | c_i)$, the forward Kullback-Leibler divergence up to the entropy of the data.

    Args:
        flow: q.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> loss = pf.MaximumLikelihood(pf.maf(features=2))
        >>> round(loss(torch.zeros(5, 2)).item(), 4)  # a new flow is the base: log(2 pi)
        1.8379
    """

    is_pure = True

    def forward(self, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The loss.

        Args:
            x: shape `(n, *event_shape)`.
            context: shape `(n, context_features)`, for a conditional flow.
            weights: shape `(n,)`, non-negative; of mean 1 over the data for a loss in nats.
        """
        log_prob: Tensor = self.flow(x, context)
        return -(log_prob if weights is None else weights * log_prob).mean()

    def initialize(self, x: Tensor, context: Tensor | None = None, weights: Tensor | None = None) -> None:  # type: ignore[override]
        self.flow.initialize(x, context)
