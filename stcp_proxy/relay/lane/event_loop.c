/* Wait in the engine's epoll set, and serve the events. */
#include "lane.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENTS 128
#define POLL_BELOW 200e-6 /* seconds between two batches below which the next wait polls first */
#define POLL_FOR 50e-6    /* seconds of polling */
#define POLL_FROM 0.25    /* share of polls that found an event, below which polling does not pay */
#define POLLS 16          /* polls over which that share goes, about */
#define CHANCES                                                                                                                            \
	15                              /* where polling does not pay, one chance of these is used to see whether it does; odd, so that
					   both halves of a round trip are tried */
#define BRIEF 2e-3                      /* seconds of a wait below which a millisecond is too coarse */
#define JUST_BYTES (EPOLLIN | EPOLLOUT) /* mask of a leg that has bytes to read, and no end, error or urgent data */

/* Serve one event of one leg: move a buffer here, or call its handler. False with an exception. */
static bool on_event(Lane *lane, struct leg *leg, PyObject *duplex, uint32_t mask, int fd)
{
	const struct layout *at = &lane->at;
	PyObject *argument, *done;

	if (has_kept_write(lane, duplex) && !send_kept_writes(lane)) /* the connection may end with that */
		return false;
	if (leg->other >= 0 && !(mask & ~(uint32_t)JUST_BYTES) && relaying(lane, duplex) && get_slot(duplex, at->plain_left) == Py_None &&
	    get_slot(duplex, at->wire_left) == Py_None) {
		if (!set_slot(duplex, at->active, Py_NewRef(lane->now)))
			return false;
		if (mask == EPOLLOUT)
			return true; /* usually a leg's first event: nothing is left to send */
		if (get_slot(duplex, at->queued) == Py_True && get_slot(duplex, leg->wire ? at->wire_ready : at->plain_ready) == Py_True) {
			lane->skipped++; /* it has its turn behind the others */
			return true;
		}
		if (!leg->wire && get_slot(duplex, at->state) == lane->open)
			return up(lane, duplex, fd, leg->other);
		if (leg->wire && get_slot(duplex, at->phase) == lane->stream)
			return down(lane, duplex, fd, leg->other);
	}
	if (!send_kept_writes(lane))
		return false;
	lane->ran_python = true;
	argument = PyLong_FromUnsignedLong(mask);
	if (!argument)
		return false;
	done = PyObject_CallOneArg(leg->handler, argument);
	Py_DECREF(argument);
	Py_XDECREF(done);
	return done != NULL;
}

/* Report the exception that a step raised to its Duplex: a bug of this program, which ends that connection and no other.
 * False with an exception that is no such bug. */
bool report_bug(Lane *lane, PyObject *duplex)
{
	PyObject *type, *value, *traceback;
	bool done;

	PyErr_Fetch(&type, &value, &traceback);
	PyErr_NormalizeException(&type, &value, &traceback);
	if (!PyErr_GivenExceptionMatches(type, PyExc_Exception)) { /* an interrupt is not a bug */
		PyErr_Restore(type, value, traceback);
		return false;
	}
	if (traceback)
		PyException_SetTraceback(value, traceback);
	done = call(lane, duplex, s_fail, Py_NewRef(value), NULL, NULL);
	Py_XDECREF(type);
	Py_XDECREF(value);
	Py_XDECREF(traceback);
	return done;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t); /* the clock of time.monotonic() */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int milliseconds(double wait)
{
	if (wait == INFINITY)
		return -1;
	if (wait <= 0)
		return 0;
	return wait > 86400 ? 86400 * 1000 : (int)ceil(wait * 1000); /* rounded up: after the wait, the deadline has passed */
}

/* Serve the events of one wait. Returns GUEST and SEEN, or -1 with an exception that did not come from a bug of a step. */
static int serve(Lane *lane, const struct epoll_event *events, int ready)
{
	int answer = 0;

	lane->skipped = 0;
	lane->keeping = ready > 1;
	for (int i = 0; i < ready; i++) {
		int fd = events[i].data.fd;
		struct leg leg;
		bool done;

		if (fd == lane->guest) {
			answer |= GUEST;
			continue;
		}
		if (fd < 0 || fd >= lane->room || !lane->legs[fd].duplex) {
			lane->ran_python = true; /* the engine's own wake-up, or a closed leg */
			continue;
		}
		leg = lane->legs[fd]; /* a copy: a step may change the table */
		Py_INCREF(leg.duplex);
		Py_INCREF(leg.handler);
		done = on_event(lane, &leg, leg.duplex, events[i].events, fd) || report_bug(lane, leg.duplex);
		Py_DECREF(leg.handler);
		Py_DECREF(leg.duplex);
		if (!done)
			return -1;
	}
	lane->keeping = false;
	if (ready > lane->skipped)
		answer |= SEEN;
	return send_kept_writes(lane) ? answer : -1;
}

/* Set the time of the batch under way, here and in the engine. False with an exception. */
static bool set_time(Lane *lane, double now)
{
	lane->time = now;
	Py_XSETREF(lane->now, PyFloat_FromDouble(now));
	return lane->now && !PyObject_SetAttr(lane->engine, s_now, lane->now);
}

/* Wait for at most a part of a millisecond: a pause of bulk (turns.py). */
static int wait_briefly(Lane *lane, struct epoll_event *events, double wait)
{
	double until = seconds() + wait;
	int ready;

#ifdef SYS_epoll_pwait2
	if (!lane->coarse) {
		struct timespec t = { 0, (long)ceil(wait * 1e9) };

		ready = (int)syscall(SYS_epoll_pwait2, lane->epoll, events, EVENTS, &t, NULL, 0);
		if (ready >= 0 || errno == EINTR)
			return ready;
		lane->coarse = true; /* a kernel before 5.11, or a filter of system calls that is older */
	}
#endif
	do {
		ready = epoll_wait(lane->epoll, events, EVENTS, 0);
		if (!ready)
			sched_yield();
	} while (!ready && seconds() < until);
	return ready;
}

/* Whether to poll: it paid a moment ago, or it is time to try again. */
static bool polls(Lane *lane)
{
	if (lane->found >= POLL_FROM)
		return true;
	lane->chances = (lane->chances + 1) % CHANCES;
	return !lane->chances;
}

/* Wait for events. On a quiet connection, waking a sleeping process and processor is most of the time of a round trip. So if a single
 * event came within POLL_BELOW of the batch before, poll for POLL_FOR and yield the processor, and only then sleep. Rare events cause no
 * polling. A batch of several events causes none either, because then there is work enough. Where the other end takes longer than
 * POLL_FOR, as it does for a new connection, polling finds nothing and stops. */
static int wait_for_events(Lane *lane, struct epoll_event *events, double wait)
{
	int ready = 0, patience = milliseconds(wait);

	if (wait > 0 && wait < BRIEF)
		return wait_briefly(lane, events, wait);
	if (patience && lane->gap < POLL_BELOW && polls(lane)) {
		double until = seconds() + POLL_FOR;

		ready = epoll_wait(lane->epoll, events, EVENTS, 0);
		if (ready)
			return ready; /* no poll was needed: this says nothing about the next one */
		do {
			sched_yield();
			ready = epoll_wait(lane->epoll, events, EVENTS, 0);
		} while (!ready && seconds() < until);
		lane->found += ((ready > 0) - lane->found) / POLLS;
	}
	return ready ? ready : epoll_wait(lane->epoll, events, EVENTS, patience);
}

/* Relay until Python has work to do, the guest is ready or `wait` seconds have passed. */
int run(Lane *lane, double wait, bool once)
{
	struct epoll_event events[EVENTS];
	double until = wait == INFINITY ? wait : seconds() + wait, now;
	int ready, served, answer = 0;

	lane->ran_python = lane->keeping = false;
	if (!send_kept_writes(lane)) /* an interrupt may have left kept writes */
		return -1;
	do {
		Py_BEGIN_ALLOW_THREADS
		ready = wait_for_events(lane, events, wait);
		Py_END_ALLOW_THREADS
		if (ready < 0) {
			if (errno != EINTR)
				PyErr_SetFromErrno(PyExc_OSError);
			if (errno != EINTR || PyErr_CheckSignals())
				return -1;
			ready = 0;
			once = true;
		}
		now = seconds();
		if (!set_time(lane, now))
			return -1;
		served = serve(lane, events, ready);
		if (served < 0)
			return -1;
		answer |= served;
		lane->gap = ready == 1 && served == SEEN ? now - lane->last : INFINITY; /* events of the guest do not count */
		lane->last = now;
		wait = until - now;
	} while (!once && !lane->ran_python && !(answer & GUEST) && wait > 0);
	return answer;
}
