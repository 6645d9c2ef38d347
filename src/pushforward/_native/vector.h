// Short vectors of floating-point numbers and the functions that the kernels need of them.
//
// Vectors are those of GCC and clang, as wide as the registers of the instruction set that this is compiled for. A NaN
// stays a NaN in every function; nothing here may be compiled with -ffast-math.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define PUSHFORWARD_BYTES 64
#elif defined(__AVX2__)
#define PUSHFORWARD_BYTES 32
#else
#define PUSHFORWARD_BYTES 16
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

template <class T> struct Number;

template <> struct Number<float> {
  using Integer = int32_t;
  typedef float Vector __attribute__((vector_size(PUSHFORWARD_BYTES)));
  typedef float Half __attribute__((vector_size(PUSHFORWARD_BYTES / 2)));
  typedef int32_t Integers __attribute__((vector_size(PUSHFORWARD_BYTES)));
  static constexpr int mantissa = 23, bias = 127, exp_terms = 7, log_terms = 5;
  static constexpr float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
  static constexpr float lowest_log = -104.0f, highest_log = 89.0f, tiny = 0x1p-126f, round = 0x1.8p23f;
};

template <> struct Number<double> {
  using Integer = int64_t;
  typedef double Vector __attribute__((vector_size(PUSHFORWARD_BYTES)));
  typedef double Half __attribute__((vector_size(PUSHFORWARD_BYTES / 2)));
  typedef int64_t Integers __attribute__((vector_size(PUSHFORWARD_BYTES)));
  static constexpr int mantissa = 52, bias = 1023, exp_terms = 13, log_terms = 11;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double lowest_log = -746.0, highest_log = 710.0, tiny = 0x1p-1022, round = 0x1.8p52;
};

template <class T> using Vector = typename Number<T>::Vector;
template <class T> using HalfVector = typename Number<T>::Half;
template <class T> using Integers = typename Number<T>::Integers;
template <class T> constexpr int lanes = PUSHFORWARD_BYTES / sizeof(T);

// a where the mask, a comparison of vectors, holds, and b elsewhere.
template <class Mask, class V> INLINE V select(Mask mask, V a, V b) { return mask ? a : b; }

template <class T> INLINE Vector<T> filled(T value) { return value - Vector<T>{}; }

template <class T> INLINE Vector<T> load(const T *from) {
  Vector<T> value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T> INLINE HalfVector<T> first_half(const Vector<T> &value) {
  HalfVector<T> half;
  std::memcpy(&half, &value, sizeof half);
  return half;
}

template <class T> INLINE Vector<T> with_zeros(HalfVector<T> half) {
  Vector<T> value{};
  std::memcpy(&value, &half, sizeof half);
  return value;
}

template <class T> INLINE void store(T *to, Vector<T> value) { std::memcpy(to, &value, sizeof value); }

template <class T> INLINE Vector<T> minimum(Vector<T> a, Vector<T> b) { return select(b < a, b, a); }

// Exchanges rows and columns of a square of vectors.
template <class T> INLINE void transpose(Vector<T> (&rows)[lanes<T>]) {
  constexpr int n = lanes<T>;
#if defined(__clang__)
  Vector<T> columns[n];
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) columns[j][i] = rows[i][j];
  std::memcpy(rows, columns, sizeof columns);
#else
  // In blocks of two, then four, and so on: those beside the diagonal change places.
#pragma GCC unroll 4
  for (int half = 1; half < n; half *= 2) {
    Integers<T> upper, lower;
    for (int j = 0; j < n; j++) {
      upper[j] = j & half ? n + j - half : j;
      lower[j] = j & half ? n + j : j + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; i++)
      if (!(i & half)) {
        const Vector<T> a = rows[i], b = rows[i + half];
        rows[i] = __builtin_shuffle(a, b, upper);
        rows[i + half] = __builtin_shuffle(a, b, lower);
      }
  }
#endif
}

template <class T> INLINE T sum_of_lanes(Vector<T> a) {
  T each[lanes<T>];
  store<T>(each, a);
  // In pairs, then pairs of pairs: one after the other would wait for each other.
#pragma GCC unroll 4
  for (int half = lanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
    for (int i = 0; i < half; i++) each[i] += each[i + half];
  return each[0];
}

// NaN if a is.
template <class T> INLINE Vector<T> maximum(Vector<T> a, Vector<T> b) { return select(b > a, b, a); }

template <class T> INLINE Vector<T> magnitude(Vector<T> a) { return select(a < 0, -a, a); }

template <class T> INLINE Vector<T> square_root(Vector<T> a) {
  Vector<T> root;
  for (int i = 0; i < lanes<T>; i++) root[i] = __builtin_sqrt(a[i]);
  return root;
}

template <> INLINE Vector<float> square_root<float>(Vector<float> a) {
  Vector<float> root;
  for (int i = 0; i < lanes<float>; i++) root[i] = __builtin_sqrtf(a[i]);
  return root;
}

// 2^n for integral n between the exponents of normal numbers.
template <class T> INLINE Vector<T> power_of_two(Vector<T> n) {
  using N = Number<T>;
  Integers<T> exponent = (Integers<T>)(n + (N::round + N::bias));
  return (Vector<T>)(exponent << N::mantissa);
}

// exp(x) - 1 = 2^n (q + 1) - 1 with q = exp(x - n ln 2) - 1 by its Taylor series.
template <class T> struct Exponential {
  Vector<T> n, q;

  INLINE explicit Exponential(Vector<T> x) {
    using N = Number<T>;
    x = maximum<T>(minimum<T>(x, filled(T(N::highest_log))), filled(T(N::lowest_log)));
    n = (x * T(1.4426950408889634) + N::round) - N::round;
    Vector<T> r = (x - n * T(N::ln2_high)) - n * T(N::ln2_low);
    Vector<T> sum = filled(T(coefficient(N::exp_terms)));
#pragma GCC unroll 16
    for (int k = N::exp_terms - 1; k > 0; k--) sum = sum * r + T(coefficient(k));
    q = sum * r;
  }

  static constexpr double coefficient(int k) { return k ? coefficient(k - 1) / k : 1.0; }
};

template <class T> INLINE Vector<T> exponential(Vector<T> x) {
  Exponential<T> e(x);
  // In two factors, as 2^n alone is no normal number at both ends.
  Vector<T> half = (e.n * T(0.5) + Number<T>::round) - Number<T>::round;
  return (e.q + T(1)) * power_of_two<T>(half) * power_of_two<T>(e.n - half);
}

// exp(x) for x <= 0, to 0 below the smallest normal number.
template <class T> INLINE Vector<T> exponential_of_negative(Vector<T> x) {
  using N = Number<T>;
  Exponential<T> e(x);
  Vector<T> value = (e.q + T(1)) * power_of_two<T>(maximum<T>(e.n, filled(T(1 - N::bias))));
  return select(e.n < T(1 - N::bias), Vector<T>{}, value);
}

template <class T> INLINE Vector<T> exponential_minus_one(Vector<T> x) {
  Exponential<T> e(x);
  Vector<T> scale = power_of_two<T>(minimum<T>(e.n, filled(T(Number<T>::bias))));
  return scale * e.q + (scale - T(1));
}

// log(x) = e ln 2 + log(m), m in [sqrt(1/2), sqrt(2)), with log(m) = 2 artanh((m - 1) / (m + 1)) by its Taylor series.
template <class T> INLINE Vector<T> logarithm(Vector<T> x) {
  using N = Number<T>;
  const T up = N::mantissa == 23 ? T(0x1p25) : T(0x1p54);
  auto subnormal = x < T(N::tiny);
  Vector<T> scaled = select(subnormal, x * up, x);
  constexpr typename N::Integer one = (typename N::Integer)N::bias << N::mantissa;
  constexpr typename N::Integer fraction = ((typename N::Integer)1 << N::mantissa) - 1;
  // Bits of sqrt(1/2): adding what 1 lacks of them moves the cut between two exponents there.
  constexpr typename N::Integer cut = N::mantissa == 23 ? 0x3f3504f3 : (typename N::Integer)0x3fe6a09e667f3bcd;
  Integers<T> bits = (Integers<T>)scaled + (one - cut);
  Integers<T> exponent = (bits >> N::mantissa) - N::bias;
  Vector<T> m = (Vector<T>)((bits & fraction) + cut);
  Vector<T> e = __builtin_convertvector(exponent, Vector<T>) - select(subnormal, filled(T(N::mantissa + 2)), Vector<T>{});
  Vector<T> t = (m - T(1)) / (m + T(1)), square = t * t;
  Vector<T> sum = filled(T(2.0 / (2 * N::log_terms - 1)));
#pragma GCC unroll 16
  for (int k = N::log_terms - 2; k >= 0; k--) sum = sum * square + T(2.0 / (2 * k + 1));
  Vector<T> value = e * T(N::ln2_high) + (sum * t + e * T(N::ln2_low));
  const T infinity = __builtin_inff();
  value = select(x == infinity, x, value);
  value = select(x == T(0), filled(-infinity), value);
  return select(x >= T(0), value, filled(T(__builtin_nanf(""))));
}

template <class T> INLINE Vector<T> sigmoid(Vector<T> x) { return T(1) / (T(1) + exponential<T>(-x)); }

// log(1 + y) for y > -1: what 1 + y loses by rounding is put back.
template <class T> INLINE Vector<T> logarithm_plus_one(Vector<T> y) {
  Vector<T> u = y + T(1);
  return logarithm<T>(u) + (y - (u - T(1))) / u;
}

// log(1 + exp(x)).
template <class T> INLINE Vector<T> softplus(Vector<T> x) {
  Vector<T> rest = logarithm_plus_one<T>(exponential_of_negative<T>(-magnitude<T>(x)));
  return select(x > 0, x + rest, rest);
}

template <class T> INLINE Vector<T> hyperbolic_tangent(Vector<T> x) {
  Vector<T> e = exponential_minus_one<T>(minimum<T>(magnitude<T>(x) * T(2), filled(T(40))));
  Vector<T> value = e / (e + T(2));
  return select(x < 0, -value, value);
}

}  // namespace
