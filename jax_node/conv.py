"""Convolutions as matrix products, because XLA on CPU is slow at convolutions.

Inside a loop XLA's CPU backend differentiates a convolution by a naive loop, some forty times
slower than a matrix product of the same size (jax-ml/jax issue 12868). The three convolutions of
the paper's models are written as matrix products instead: they need no gradient rule of their own,
so jvp, vjp, vmap and derivatives of derivatives all work, and a product inside a loop is as fast as
outside. An accelerator gets the plain convolution.

Everything here has space leading, `[height, width, batch, channels]`, so that a window of the image
is a contiguous slice.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def on_platform(
    products: Callable[[Array, Array], Array], otherwise: Callable[[Array, Array], Array]
) -> Callable[[Array, Array], Array]:
    """`products` in a program for a CPU, `otherwise` in one for an accelerator."""
    return lambda x, kernel: jax.lax.platform_dependent(x, kernel, cpu=products, default=otherwise)


def plain(
    x: Float[Array, "height width batch c_in"],
    kernel: Float[Array, "k k c_in c_out"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "height_out width_out batch c_out"]:
    """XLA's own convolution: what the others in this file equal."""
    out = jax.lax.conv_general_dilated(
        x.transpose(2, 0, 1, 3),  # XLA on CPU is fast in this order only; a GPU fuses it away
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return out.transpose(1, 2, 0, 3)


half3x3 = functools.partial(plain, stride=2, padding=1)
half1x1 = functools.partial(plain, stride=2)


@functools.cache
def winograd(outputs: int, taps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices `A`, `G`, `B` of the minimal correlation `y = A [(G g) * (B d)]`.

    `d` has `outputs + taps - 1` samples, `g` has `taps`, `y` has `outputs`. Multiplying two
    polynomials by their values at `n` points (one of them infinity) is the Toom-Cook product;
    its transpose is the correlation (Winograd 1980; Lavin and Gray 2016, section 4.1).
    """
    n = outputs + taps - 1
    points = np.array([0, 1, -1, 0.5, -0.5, 2, -2])[: n - 1]

    def evaluate(degree: int) -> np.ndarray:
        at_infinity = np.eye(degree)[-1:]
        return np.concatenate([np.vander(points, degree, increasing=True), at_infinity])

    A, G, B = evaluate(outputs).T, evaluate(taps), np.linalg.inv(evaluate(n)).T
    # Each product may be scaled freely between the three; equal sizes keep float32 errors low.
    a, g, b = np.abs(A).sum(0), np.abs(G).sum(1), np.abs(B).sum(1)
    mean = np.cbrt(a * g * b)
    return A * (mean / a), G * (mean / g)[:, None], B * (mean / b)[:, None]


@functools.cache
def _tiled_winograd(size: int, taps: int, stride: int) -> tuple[np.ndarray, ...]:
    """`winograd` for a row of `size` pixels, zero padding 1, in equal tiles of at most 8 points.

    Returns `A` `[outputs, points * tiles]`, `G` `[points, taps]`, and for every phase of the stride
    a `B` `[points * tiles, size]`: with stride 2 even and odd pixels are two rows, each of which
    meets every other tap, and which share `A` and `G`.
    """
    outputs = (size + 2) // stride - taps + 1
    tiles = -(-outputs // (9 - taps))
    width = -(-outputs // tiles)
    A, G, B = winograd(width, taps)
    tiled = np.zeros((tiles * width, len(G), tiles))
    padded = np.zeros((stride, len(G), tiles, 2 + max(size, stride * (tiles * width + taps))))
    for tile in range(tiles):
        first = tile * width
        tiled[first : first + width, :, tile] = A
        for phase in range(stride):
            pixels = np.arange(first, first + len(G)) * stride + phase
            padded[phase, :, tile, pixels] = B.T
    # What lies in the padding is zero, and outputs beyond the last are not wanted.
    B = padded[..., 1 : size + 1].reshape(stride, -1, size)
    return tiled[:outputs].reshape(outputs, -1), G, *B


def _along_first(
    matrix: np.ndarray, x: Float[Array, "rows columns n"]
) -> Float[Array, "rows_out columns n"]:
    """The product of `matrix` and the first axis."""
    out = jnp.asarray(matrix, x.dtype) @ x.reshape(len(x), -1)
    return out.reshape(len(matrix), *x.shape[1:])


def _along_second(
    matrix: np.ndarray, x: Float[Array, "rows columns n"]
) -> Float[Array, "rows columns_out n"]:
    """The product of `matrix` and the second axis: one for each row, so that nothing moves."""
    return jnp.broadcast_to(jnp.asarray(matrix, x.dtype), (len(x), *matrix.shape)) @ x


def _winograd_convolution(
    x: Float[Array, "height width batch c_in"],
    kernel: Float[Array, "k k c_in c_out"],
    *,
    stride: int,
) -> Float[Array, "height_out width_out batch c_out"]:
    """Convolution with zero padding 1, whose `stride` divides the kernel's size.

    Tiles share their weights: to the products they are more images.
    """
    height, width, batch, c_in = x.shape
    c_out = kernel.shape[-1]
    taps = len(kernel) // stride
    A_h, G_h, *B_h = _tiled_winograd(height, taps, stride)
    A_w, G_w, *B_w = _tiled_winograd(width, taps, stride)
    points_h, points_w = len(G_h), len(G_w)
    tiles_h, tiles_w = A_h.shape[1] // points_h, A_w.shape[1] // points_w
    points, images = points_h * points_w, tiles_h * tiles_w * batch
    G = jnp.asarray(np.kron(G_h, G_w), x.dtype)
    x = x.reshape(height, width, -1)
    products = []
    for i, rows in enumerate(_along_first(B, x) for B in B_h):
        for j, d in enumerate(_along_second(B, rows) for B in B_w):
            d = d.reshape(points_h, tiles_h, points_w, tiles_w, -1).swapaxes(1, 2)
            g = G @ kernel[i::stride, j::stride].reshape(taps * taps, -1)
            d, g = d.reshape(points, images, c_in), g.reshape(points, c_in, c_out)
            products.append(jnp.einsum("pbi,pio->pbo", d, g))
    y = functools.reduce(jnp.add, products)
    y = y.reshape(points_h, points_w, tiles_h, tiles_w, -1).swapaxes(1, 2)
    y = y.reshape(points_h * tiles_h, points_w * tiles_w, -1)
    y = _along_first(A_h, _along_second(A_w, y))
    return y.reshape(len(A_h), len(A_w), batch, c_out)


def _check(x: Array, kernel: Array, size: int) -> None:
    expected = (size, size, x.shape[-1])
    if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[:3] != expected:
        raise ValueError(
            f"the image is {list(x.shape)} and the kernel {list(kernel.shape)}: give [height, "
            f"width, batch, c_in] and [{size}, {size}, c_in, c_out]"
        )


def _too_narrow(x: Array) -> bool:
    """Of Winograd's transforms, which enlarge rounding and have halves that whole numbers lack."""
    return x.dtype not in (jnp.float32, jnp.float64)


def same3x3(
    x: Float[Array, "height width batch c_in"], kernel: Float[Array, "3 3 c_in c_out"]
) -> Float[Array, "height width batch c_out"]:
    """3x3 convolution, zero padding 1, by Winograd's F(6x6, 3x3) on small images.

    A 6x6 image is one tile: 64 products of `[batch, c_in] [c_in, c_out]` where the plain form has
    324, between products with small constant matrices. Relative error in float32: 4e-6 (plain:
    4e-7); narrower dtypes get the plain form.
    """
    _check(x, kernel, 3)
    if max(x.shape[:2]) > 8 or _too_narrow(x):
        return plain(x, kernel, padding=1)
    products = functools.partial(_winograd_convolution, stride=1)
    return on_platform(products, functools.partial(plain, padding=1))(x, kernel)


def valid3x3(
    x: Float[Array, "height width batch c_in"], kernel: Float[Array, "3 3 c_in c_out"]
) -> Float[Array, "height_out width_out batch c_out"]:
    """3x3 convolution without padding, by stacking the nine windows (for few input channels)."""
    _check(x, kernel, 3)

    def by_windows(x: Array, kernel: Array) -> Array:
        height, width = x.shape[0] - 2, x.shape[1] - 2
        windows = jnp.stack([x[i : i + height, j : j + width] for i in range(3) for j in range(3)])
        return jnp.einsum("khwbi,kio->hwbo", windows, kernel.reshape(9, *kernel.shape[2:]))

    return on_platform(by_windows, plain)(x, kernel)


def half4x4(
    x: Float[Array, "height width batch c_in"], kernel: Float[Array, "4 4 c_in c_out"]
) -> Float[Array, "height_out width_out batch c_out"]:
    """4x4 convolution, stride 2, zero padding 1, by Winograd's F(7x7, 2x2) on even and odd pixels.

    A 26x26 image takes 1,024 products of `[batch, c_in] [c_in, c_out]` where the plain form has
    2,704. Relative error in float32: 4e-6 (plain: 4e-7); narrower dtypes get the plain form.
    """
    _check(x, kernel, 4)
    if min(x.shape[:2]) < 2 or _too_narrow(x):
        return plain(x, kernel, stride=2, padding=1)
    products = functools.partial(_winograd_convolution, stride=2)
    return on_platform(products, functools.partial(plain, stride=2, padding=1))(x, kernel)


def in_bfloat16(convolve: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`convolve` of bfloat16 operands, summed in float32, with a result rounded to bfloat16.

    Dtypes outside stay as they are, and gradients are rounded alike. An accelerator computes in
    bfloat16. A CPU is slow at it, so there float32 numbers are rounded to bfloat16's 8 bits of
    mantissa: products of two such numbers are exact in float32, so that the result is the same but
    for the order of summation, and no faster than float32.
    """
    emulate = functools.partial(jax.lax.reduce_precision, exponent_bits=8, mantissa_bits=7)

    def emulated(x: Array, kernel: Array) -> Array:
        return emulate(convolve(emulate(x), emulate(kernel)))

    def native(x: Array, kernel: Array) -> Array:
        return convolve(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)).astype(x.dtype)

    return on_platform(emulated, native)
