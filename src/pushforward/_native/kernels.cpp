// The kernels behind a plain C interface; one library of them is built for each instruction set.
#include "elementwise.h"
#include "layers.h"
#include "planar.h"

namespace {

constexpr int64_t elementwise_grain[] = {8192, 512};  // vectors that are worth a thread, by kind of map

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int32_t pushforward_abi() { return 4; }
EXPORT void pushforward_set_region(Region parallel) { region = parallel; }

#define DEFINE(T, SUFFIX)                                                                                              \
  EXPORT int64_t pushforward_padded_rows_##SUFFIX(int64_t n) { return whole_tiles<T>(n) * tile_rows<T>; }             \
  EXPORT int32_t pushforward_map_##SUFFIX(const pushforward_map *map, int64_t n, const T *value, const T *h, T *out,  \
                                          T *log_slope, int64_t threads) {                                            \
    return with_map<T>(*map, [=](const auto &own) {                                                                   \
      elementwise<T>(own, n, value, h, out, log_slope, elementwise_grain[map->kind], threads);                        \
    });                                                                                                                \
  }                                                                                                                    \
  EXPORT int32_t pushforward_map_pull_##SUFFIX(                                                                       \
      const pushforward_map *map, int64_t n, const T *value, const T *h, const T *out, const T *log_slope,            \
      const T *by_out, const T *by_log_slope, T *by_value, T *by_h, int64_t threads) {                                \
    return with_map<T>(*map, [=](const auto &own) {                                                                   \
      elementwise_pull<T>(own, n, value, h, out, log_slope, by_out, by_log_slope, by_value, by_h,                     \
                          elementwise_grain[map->kind], threads);                                                     \
    });                                                                                                                \
  }                                                                                                                    \
  EXPORT int64_t pushforward_layers_saved_##SUFFIX(int32_t count, const pushforward_layer *layers, int64_t n) {        \
    return Row<T>(count, layers, n).saved_size();                                                                      \
  }                                                                                                                    \
  EXPORT int32_t pushforward_layers_##SUFFIX(int32_t count, const pushforward_layer *layers,                          \
                                             const T *const *parameters, int64_t n, const T *value, const T *context, \
                                             T *out, T *log_det, T *saved, int64_t threads) {                          \
    return Row<T>(count, layers, n).apply(parameters, value, context, out, log_det, saved, threads);                  \
  }                                                                                                                    \
  EXPORT int32_t pushforward_layers_pull_##SUFFIX(                                                                    \
      int32_t count, const pushforward_layer *layers, const T *const *parameters, int64_t n, const T *value,          \
      T *saved, const T *by_out, const T *by_log_det, T *by_value, T *by_context, T *const *by_parameters,            \
      int64_t threads) {                                                                                               \
    return Row<T>(count, layers, n).pull(parameters, value, saved, by_out, by_log_det, by_value, by_context,          \
                                         by_parameters, threads);                                                      \
  }

#define DEFINE_PLANAR(T, SUFFIX)                                                                                       \
  EXPORT int32_t pushforward_planar_##SUFFIX(int32_t layers, int32_t features, const T *const *parameters, int64_t n, \
                                             const T *z, T *x, T *log_det, T *saved, int64_t threads) {               \
    planar<T>(layers, features, parameters, n, z, x, log_det, saved, threads);                                        \
    return 0;                                                                                                          \
  }                                                                                                                    \
  EXPORT int32_t pushforward_planar_pull_##SUFFIX(                                                                    \
      int32_t layers, int32_t features, const T *const *parameters, int64_t n, T *saved, const T *by_x,               \
      const T *by_log_det, T *by_z, T *const *by_parameters, int64_t threads) {                                       \
    planar_pull<T>(layers, features, parameters, n, saved, by_x, by_log_det, by_z, by_parameters, threads);           \
    return 0;                                                                                                          \
  }

DEFINE_PLANAR(float, f32)
DEFINE_PLANAR(double, f64)
DEFINE(float, f32)
DEFINE(double, f64)
