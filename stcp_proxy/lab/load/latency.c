/*
 * latency.c: a histogram of the latencies of a run. Each power of two has 128 buckets, so the error is at most 0.8 %.
 */
#include "load.h"

#include <stdio.h>
#include <sys/resource.h>

#define SUB 7 /* bits of a bucket's number within its power of two */
static uint64_t buckets[64 << SUB], sum_ns, max_ns;
uint64_t samples, total;

/* The bucket of a latency in nanoseconds. */
static unsigned bucket_of(uint64_t v)
{
	unsigned shift;

	if (v < (1u << SUB))
		return (unsigned)v;
	shift = 63u - (unsigned)__builtin_clzll(v) - SUB;
	return ((shift + 1) << SUB) + (unsigned)((v >> shift) & ((1u << SUB) - 1));
}

/* The middle of a bucket, in nanoseconds. */
static double value_of(unsigned b)
{
	unsigned shift = b >> SUB;

	if (!shift)
		return b;
	return ((double)((1u << SUB) + (b & ((1u << SUB) - 1))) + 0.5) * (double)(1ull << (shift - 1));
}

void record(uint64_t ns)
{
	buckets[bucket_of(ns)]++;
	samples++;
	sum_ns += ns;
	if (ns > max_ns)
		max_ns = ns;
}

/* The latency below which the fraction p of all samples lies, in microseconds. */
static double percentile(double p)
{
	uint64_t rank = (uint64_t)(p * (double)samples), seen = 0;

	for (unsigned b = 0; b < (64u << SUB); b++)
		if ((seen += buckets[b]) > rank)
			return value_of(b) / 1e3;
	return (double)max_ns / 1e3;
}

void report(const char *mode, unsigned n, unsigned size, double seconds, uint64_t errors)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	printf("{\"mode\":\"%s\",\"connections\":%u,\"size\":%u,\"seconds\":%.6f,\"total\":%llu,\"rate\":%.3f,"
	       "\"mean\":%.3f,\"p50\":%.3f,\"p90\":%.3f,\"p99\":%.3f,\"p999\":%.3f,\"max\":%.3f,\"errors\":%llu,\"cpu\":%.4f}\n",
	       mode, n, size, seconds, (unsigned long long)total, (double)samples / seconds,
	       samples ? (double)sum_ns / (double)samples / 1e3 : 0.0, percentile(.5), percentile(.9), percentile(.99), percentile(.999),
	       (double)max_ns / 1e3, (unsigned long long)errors,
	       (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
}
