//! The three linear maps of Winograd's form, one row or column of a tile at a time.
//!
//! Polynomials are evaluated at 0, ±α, ±β and ∞ with α = 1/√2, β = √2. With d an input of six
//! values, g a kernel of three and m the products:
//!
//! ```text
//! input    v0 = d0 − 5/2·d2 + d4            v5 = d1 − 5/2·d3 + d5
//!          v1,2 = (d4 − 2·d2) ± α·(d3 − 2·d1)    v3,4 = (d4 − ½·d2) ± β·(d3 − ½·d1)
//! kernel   u0 = g0    u1,2 = −(2·g0 + g2)/3 ∓ ⅔α·g1    u3,4 = (g0 + 2·g2)/6 ± β/6·g1    u5 = g2
//! output   y0 = m0 + s1 + s2    y1 = α·t1 + β·t2    y2 = ½·s1 + 2·s2    y3 = ½α·t1 + 2β·t2 + m5
//!          with s1 = m1 + m2, t1 = m1 − m2, s2 = m3 + m4, t2 = m3 − m4
//! ```
//!
//! The gradient of the kernel takes the transposes of the maps of output and kernel.

use crate::gemm::vector::Vector;

/// α, where a polynomial is evaluated.
pub(super) const ALPHA: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// β, where a polynomial is evaluated.
pub(super) const BETA: f32 = std::f32::consts::SQRT_2;

/// Six values of input.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn of_input<V: Vector>(d: [V; 6]) -> [V; 6] {
    // SAFETY: passed on to the caller.
    unsafe {
        let wide = V::splat(-2.5);
        let (two, half) = (V::splat(-2.0), V::splat(-0.5));
        let (even, odd) = (d[4].mul_add(two, d[2]), d[3].mul_add(two, d[1]));
        let (even2, odd2) = (d[4].mul_add(half, d[2]), d[3].mul_add(half, d[1]));
        [
            d[0].add(d[4]).mul_add(wide, d[2]),
            even.mul_add(V::splat(ALPHA), odd),
            even.mul_add(V::splat(-ALPHA), odd),
            even2.mul_add(V::splat(BETA), odd2),
            even2.mul_add(V::splat(-BETA), odd2),
            d[1].add(d[5]).mul_add(wide, d[3]),
        ]
    }
}

/// Six products to four values of output.
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn to_output<V: Vector>(m: [V; 6]) -> [V; 4] {
    // SAFETY: passed on to the caller.
    unsafe {
        let minus = V::splat(-1.0);
        let (sum, difference) = (m[1].add(m[2]), m[1].mul_add(minus, m[2]));
        let (sum2, difference2) = (m[3].add(m[4]), m[3].mul_add(minus, m[4]));
        [
            m[0].add(sum).add(sum2),
            difference
                .mul(V::splat(ALPHA))
                .mul_add(V::splat(BETA), difference2),
            sum.mul(V::splat(0.5)).mul_add(V::splat(2.0), sum2),
            m[5].mul_add(V::splat(0.5 * ALPHA), difference)
                .mul_add(V::splat(2.0 * BETA), difference2),
        ]
    }
}

/// Four gradients of outputs to those of six products: the transpose of [`to_output`].
///
/// # Safety
/// The processor has the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn of_gradient<V: Vector>(y: [V; 4]) -> [V; 6] {
    // SAFETY: passed on to the caller.
    unsafe {
        let (two, half) = (V::splat(2.0), V::splat(0.5));
        let (even, odd) = (y[0].mul_add(half, y[2]), y[1].mul_add(half, y[3]));
        let (even2, odd2) = (y[0].mul_add(two, y[2]), y[1].mul_add(two, y[3]));
        [
            y[0],
            even.mul_add(V::splat(ALPHA), odd),
            even.mul_add(V::splat(-ALPHA), odd),
            even2.mul_add(V::splat(BETA), odd2),
            even2.mul_add(V::splat(-BETA), odd2),
            y[3],
        ]
    }
}

/// Six gradients of transformed kernels to three of kernels: the transpose of [`of_kernel`].
#[inline(always)]
pub(super) fn to_kernel(u: [f32; 6]) -> [f32; 3] {
    let (sum, difference) = (u[1] + u[2], u[1] - u[2]);
    let (sum2, difference2) = (u[3] + u[4], u[3] - u[4]);
    [
        u[0] - (2.0 / 3.0) * sum + (1.0 / 6.0) * sum2,
        (-2.0 / 3.0 * ALPHA) * difference + (BETA / 6.0) * difference2,
        u[5] - (1.0 / 3.0) * sum + (1.0 / 3.0) * sum2,
    ]
}

/// Three values of a kernel, for `N` kernels at once.
#[inline(always)]
pub(super) fn of_kernel<const N: usize>([a, b, c]: [&[f32; N]; 3]) -> [[f32; N]; 6] {
    let mut u = [[0.0; N]; 6];
    for n in 0..N {
        let (even, odd) = (
            (-2.0 / 3.0) * a[n] - (1.0 / 3.0) * c[n],
            (-2.0 / 3.0 * ALPHA) * b[n],
        );
        let (even2, odd2) = ((1.0 / 6.0) * a[n] + (1.0 / 3.0) * c[n], (BETA / 6.0) * b[n]);
        u[0][n] = a[n];
        u[1][n] = even + odd;
        u[2][n] = even - odd;
        u[3][n] = even2 + odd2;
        u[4][n] = even2 - odd2;
        u[5][n] = c[n];
    }
    u
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gemm::vector::Plain;

    /// One dimension: four outputs of a kernel of three are exactly the sums that define them.
    #[test]
    fn products_between_the_maps_are_a_correlation() {
        let (d, g) = ([0.5, -1.0, 2.0, 0.25, -0.75, 1.5], [0.3, -0.7, 1.1]);
        // SAFETY: plain Rust; the array holds a vector's lanes.
        let y = unsafe {
            let v = of_input(d.map(|x| Plain::splat(x)));
            let u = of_kernel([&[g[0]], &[g[1]], &[g[2]]]);
            let mut m = [Plain::zero(); 6];
            for i in 0..6 {
                m[i] = v[i].mul(Plain::splat(u[i][0]));
            }
            to_output(m).map(|y| {
                let mut lanes = [0.0; 4];
                y.store(lanes.as_mut_ptr());
                lanes[0]
            })
        };
        for (x, y) in y.iter().enumerate() {
            let expected = g[0] * d[x] + g[1] * d[x + 1] + g[2] * d[x + 2];
            assert!((y - expected).abs() < 1e-6, "{y} instead of {expected}");
        }
    }
}
