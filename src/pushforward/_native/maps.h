// Scalar increasing maps x = tau(z; h) and their gradients, for one vector of values.
//
// A map is given the parameters h as vectors `stride` apart. `apply` finds the value and the log-slope of the map, or of
// its inverse. `pull` takes cotangents of both back to the value and to h; it is given what `apply` returned too.
#pragma once

#include "vector.h"

struct pushforward_map {
  int32_t kind;     // 0 affine, 1 rational-quadratic spline
  int32_t inverse;  // whether the map is read backwards
  int32_t bins;
  int32_t tails;  // of the spline: 0 linear, 1 free, 2 circular
  double bound;   // of the log-scale, or of the spline
  double min_bin;
  double min_slope;
  double slope_shift;  // softplus(slope_shift) + min_slope = 1
};

namespace {

constexpr int most_bins = 64;

// x = z exp(s) + t with h = (r, t) and s = bound tanh(r / bound).
template <class T> struct Affine {
  using V = Vector<T>;
  T bound, one_over_bound;
  bool inverse;

  INLINE explicit Affine(const pushforward_map &map)
      : bound(T(map.bound)), one_over_bound(T(1 / map.bound)), inverse(map.inverse) {}

  INLINE int parameters() const { return 2; }

  INLINE void apply(V value, const V *h, int stride, V &out, V &log_slope) const {
    V s = bound * hyperbolic_tangent<T>(h[0] * one_over_bound), t = h[stride];
    log_slope = inverse ? -s : s;
    V scale = exponential<T>(log_slope);
    out = inverse ? (value - t) * scale : value * scale + t;
  }

  INLINE void pull(V value, const V *, int stride, V out, V log_slope, V by_out, V by_log_slope, V &by_value,
                   V *by_h) const {
    V tanh = (inverse ? -log_slope : log_slope) * one_over_bound;
    V scale = exponential<T>(log_slope);
    by_value = by_out * scale;
    V by_s = inverse ? -(by_out * out + by_log_slope) : by_value * value + by_log_slope;
    by_h[0] = by_s * (T(1) - tanh * tanh);
    by_h[stride] = inverse ? -by_value : by_out;
  }
};

// Monotone rational-quadratic spline; h holds K widths, K heights and the slopes at the knots, all unnormalised.
template <class T> struct RationalQuadratic {
  using V = Vector<T>;
  enum { linear, free, circular };
  int bins, tails;
  bool inverse;
  T bound, min_bin, min_slope, slope_shift;

  INLINE explicit RationalQuadratic(const pushforward_map &map)
      : bins(map.bins), tails(map.tails), inverse(map.inverse), bound(T(map.bound)), min_bin(T(map.min_bin)),
        min_slope(T(map.min_slope)), slope_shift(T(map.slope_shift)) {}

  INLINE int parameters() const { return 3 * bins + (tails == circular ? 0 : tails == free ? 1 : -1); }

  // Where h holds the slope at knot k, or -1 if it is 1.
  INLINE int slope_index(int k) const {
    if (tails == free) return 2 * bins + k;
    if (tails == circular) return 2 * bins + (k < bins ? k : 0);
    return 0 < k && k < bins ? 2 * bins + k - 1 : -1;
  }

  INLINE V raw_slope(const V *h, int stride, int k) const {
    int index = slope_index(k);
    return index < 0 ? V{} : h[index * stride];
  }

  // One row of sizes: their exponentials, and what turns sums of them into knots.
  struct Row {
    V e[most_bins];
    V one_over_total, scale;
  };

  INLINE void read_row(const V *h, int stride, Row &row) const {
    V most = h[0];
    for (int k = 1; k < bins; k++) most = maximum<T>(most, h[k * stride]);
    V total{};
    for (int k = 0; k < bins; k++) total += row.e[k] = exponential_of_negative<T>(h[k * stride] - most);
    row.one_over_total = T(1) / total;
    row.scale = row.one_over_total * (T(2) * bound * (T(1) - T(bins) * min_bin));
  }

  INLINE T knot_start(int k) const { return T(2) * bound * min_bin * T(k) - bound; }

  // The bin of each value: the index, the knots on both axes, the slopes before softplus and after.
  struct Bin {
    V index, z0, z1, x0, x1, raw0, raw1, d0, d1;
  };

  INLINE void find(V value, bool by_heights, const V *h, int stride, const Row &widths, const Row &heights, Bin &bin) const {
    bin.index = V{};
    bin.z0 = bin.x0 = filled(-bound);
    V sum_z{}, sum_x{}, next_z, next_x;
    bin.raw0 = raw_slope(h, stride, 0);
    V raw = bin.raw1 = raw_slope(h, stride, 1);
    sum_z += widths.e[0], sum_x += heights.e[0];
    V knot_z = bin.z1 = sum_z * widths.scale + knot_start(1);
    V knot_x = bin.x1 = sum_x * heights.scale + knot_start(1);
    for (int k = 1; k < bins; k++) {
      if (k + 1 < bins) {
        sum_z += widths.e[k], sum_x += heights.e[k];
        next_z = sum_z * widths.scale + knot_start(k + 1);
        next_x = sum_x * heights.scale + knot_start(k + 1);
      } else {
        // Exactly the bound, but for NaN, which has to stay one.
        next_z = bound + (knot_z - knot_z);
        next_x = bound + (knot_x - knot_x);
      }
      V next_raw = raw_slope(h, stride, k + 1);
      auto beyond = by_heights ? value >= knot_x : value >= knot_z;
      bin.index = select(beyond, filled(T(k)), bin.index);
      bin.z0 = select(beyond, knot_z, bin.z0);
      bin.x0 = select(beyond, knot_x, bin.x0);
      bin.raw0 = select(beyond, raw, bin.raw0);
      bin.z1 = select(beyond, next_z, bin.z1);
      bin.x1 = select(beyond, next_x, bin.x1);
      bin.raw1 = select(beyond, next_raw, bin.raw1);
      knot_z = next_z, knot_x = next_x, raw = next_raw;
    }
    bin.d0 = slope(bin.raw0);
    bin.d1 = slope(bin.raw1);
  }

  INLINE V slope(V raw) const { return min_slope + softplus<T>(raw + slope_shift); }

  INLINE V slope_of_slope(V raw) const { return sigmoid<T>(raw + slope_shift); }

  INLINE V raw_slope_outside(V value, const V *h, int stride) const {
    return select(value < -bound, h[slope_index(0) * stride], h[slope_index(bins) * stride]);
  }

  INLINE void apply(V value, const V *h, int stride, V &out, V &log_slope) const {
    Row widths, heights;
    read_row(h, stride, widths);
    read_row(h + bins * stride, stride, heights);
    auto inside = (value >= -bound) & (value <= bound);
    V safe = select(inside, value, V{});
    Bin bin;
    find(safe, inverse, h, stride, widths, heights, bin);
    V w = bin.z1 - bin.z0, v = bin.x1 - bin.x0, s = v / w, bend = bin.d0 + bin.d1 - T(2) * s;
    V xi, mapped;
    if (inverse) {
      V u = within_one((safe - bin.x0) / v);
      V a = s - bin.d0 + u * bend, b = bin.d0 - u * bend, c = -s * u;
      V discriminant = maximum<T>(b * b - T(4) * a * c, filled(Number<T>::tiny));
      xi = within_one(T(2) * c / (-b - square_root<T>(discriminant)));
      mapped = bin.z0 + w * xi;
    } else {
      xi = within_one((safe - bin.z0) / w);
    }
    V rest = T(1) - xi, product = xi * rest;
    V one_over_denominator = T(1) / (s + bend * product);
    if (!inverse) mapped = bin.x0 + v * (s * xi * xi + bin.d0 * product) * one_over_denominator;
    V ratio = s * one_over_denominator;
    V numerator = bin.d1 * xi * xi + T(2) * s * product + bin.d0 * rest * rest;
    V log = logarithm<T>(ratio * (ratio * numerator));
    out = select(inside, mapped, value);
    log_slope = select(inside, inverse ? -log : log, V{});
    if (tails == free) {
      V end = select(value < -bound, filled(-bound), filled(bound)), d = slope(raw_slope_outside(value, h, stride));
      log = logarithm<T>(d);
      out = select(inside, out, end + (inverse ? (value - end) / d : (value - end) * d));
      log_slope = select(inside, log_slope, inverse ? -log : log);
    }
  }

  INLINE void pull(V value, const V *h, int stride, V out, V log_slope, V by_out, V by_log_slope, V &by_value,
                   V *by_h) const {
    Row widths, heights;
    read_row(h, stride, widths);
    read_row(h + bins * stride, stride, heights);
    auto inside = (value >= -bound) & (value <= bound);
    Bin bin;
    find(select(inside, value, V{}), inverse, h, stride, widths, heights, bin);
    V w = bin.z1 - bin.z0, v = bin.x1 - bin.x0, one_over_w = T(1) / w, s = v * one_over_w;
    V bend = bin.d0 + bin.d1 - T(2) * s;
    V raw_xi = (select(inside, inverse ? out : value, V{}) - bin.z0) * one_over_w, xi = within_one(raw_xi);
    V rest = T(1) - xi, product = xi * rest, turn = T(1) - T(2) * xi;
    V one_over_denominator = T(1) / (s + bend * product);
    V height = (s * xi * xi + bin.d0 * product) * one_over_denominator;
    V numerator = bin.d1 * xi * xi + T(2) * s * product + bin.d0 * rest * rest;
    V one_over_numerator = T(1) / numerator;
    V slope_of_numerator = T(2) * (bin.d1 * xi + s * turn - bin.d0 * rest), slope_of_denominator = bend * turn;
    V by_x = by_out, by_log = by_log_slope;
    if (inverse) {
      // dz = (dx - dtau/dh dh) / tau', and the log-slope is minus that of tau at z.
      V bend_of_log = (slope_of_numerator * one_over_numerator - T(2) * slope_of_denominator * one_over_denominator);
      by_log = -by_log_slope;
      by_x = -(by_out + by_log * bend_of_log * one_over_w) * exponential<T>(log_slope);
    }
    // The gradient is a combination of those of the three polynomials that the spline is made of.
    V by_height = by_x * v * one_over_denominator;
    V by_denominator = -by_height * height - T(2) * by_log * one_over_denominator;
    V by_numerator = by_log * one_over_numerator;
    V by_xi = by_height * (T(2) * s * xi + bin.d0 * turn) + by_denominator * slope_of_denominator +
              by_numerator * slope_of_numerator;
    by_xi = select((raw_xi >= T(0)) & (raw_xi <= T(1)), by_xi, V{});
    V by_s = by_height * xi * xi + by_denominator * (T(1) - T(2) * product) + by_numerator * T(2) * product + T(2) * by_log / s;
    V by_d0 = by_height * product + by_denominator * product + by_numerator * rest * rest;
    V by_d1 = by_denominator * product + by_numerator * xi * xi;
    V by_v = by_x * height + by_s * one_over_w;
    V by_w = -(by_s * s + by_xi * xi) * one_over_w;
    V by_z0 = -by_xi * one_over_w - by_w, by_x0 = by_x - by_v;
    by_value = select(inside, inverse ? -by_x : by_xi * one_over_w, by_out);
    spread(inside, bin.index, by_z0, by_w, widths, by_h, stride);
    spread(inside, bin.index, by_x0, by_v, heights, by_h + bins * stride, stride);
    by_d0 = select(inside, by_d0 * slope_of_slope(bin.raw0), V{});
    by_d1 = select(inside, by_d1 * slope_of_slope(bin.raw1), V{});
    for (int k = 2 * bins; k < parameters(); k++) by_h[k * stride] = V{};
    for (int k = 0; k <= bins; k++) {
      int index = slope_index(k);
      if (index < 0) continue;
      by_h[index * stride] += select(bin.index == T(k), by_d0, V{}) + select(bin.index == T(k - 1), by_d1, V{});
    }
    if (tails == free) {
      auto left = value < -bound;
      V end = select(left, filled(-bound), filled(bound)), raw = raw_slope_outside(value, h, stride), d = slope(raw);
      V by_d = inverse ? -(by_out * (value - end) / d + by_log_slope) / d : by_out * (value - end) + by_log_slope / d;
      by_value = select(inside, by_value, inverse ? by_out / d : by_out * d);
      by_d *= slope_of_slope(raw);
      by_h[slope_index(0) * stride] += select(left, by_d, V{});
      by_h[slope_index(bins) * stride] += select(inside | left, V{}, by_d);
    }
  }

  static INLINE V within_one(V x) { return minimum<T>(maximum<T>(x, V{}), filled(T(1))); }

  // The gradient by one row of unnormalised sizes, of cotangents of the knots before and after bin k.
  template <class Mask>
  INLINE void spread(Mask inside, V index, V by_low, V by_high, const Row &row, V *by_h, int stride) const {
    const T scale = T(2) * bound * (T(1) - T(bins) * min_bin);
    V low = select(inside, by_low * scale, V{}), high = select(inside, by_high * scale, V{});
    V below{}, own{};
    for (int k = 0; k < bins; k++) {
      below = select(index > T(k), below + row.e[k], below);
      own = select(index == T(k), row.e[k], own);
    }
    low = select(index == T(0), V{}, low);  // the ends of the spline do not move
    high = select(index == T(bins - 1), V{}, high);
    V mean = (low * below + high * (below + own)) * row.one_over_total;
    for (int k = 0; k < bins; k++) {
      V by_share = select(index > T(k), low + high, select(index == T(k), high, V{}));
      by_h[k * stride] = row.e[k] * row.one_over_total * (by_share - mean);
    }
  }
};

// Calls work with the map's class, for which the compiler then makes code of its own. Not 0 if there is none.
template <class T, class Work> int32_t with_map(const pushforward_map &map, const Work &work) {
  switch (map.kind) {
    case 0: work(Affine<T>(map)); return 0;
    case 1: work(RationalQuadratic<T>(map)); return 0;
    default: return 1;
  }
}

}  // namespace
