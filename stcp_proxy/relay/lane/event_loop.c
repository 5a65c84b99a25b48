/* Waiting for the engine's epoll set, and serving what it tells. */
#include "lane.h"

#include <sched.h>

#define EVENTS 128
#define CLOSE 200e-6                    /* seconds between two batches of events upon which a next one is looked for */
#define LOOK_FOR 50e-6                  /* seconds */
#define JUST_BYTES (EPOLLIN | EPOLLOUT) /* what epoll reports of a leg that has bytes to read, and is otherwise as it was */

/* One event of one leg. False with an exception. */
static bool on_event(Lane *lane, struct leg *leg, PyObject *duplex, uint32_t mask, int fd)
{
	const struct layout *at = &lane->at;
	PyObject *argument, *done;

	if (has_kept(lane, duplex) && !send_kept(lane)) /* it may end with that */
		return false;
	if (!(mask & ~(uint32_t)JUST_BYTES) && relaying(lane, duplex) && get(duplex, at->plain_left) == Py_None &&
	    get(duplex, at->wire_left) == Py_None) {
		if (!put(duplex, at->active, Py_NewRef(lane->now)))
			return false;
		if (mask == EPOLLOUT)
			return true; /* each leg's first event, unless it has bytes already: nothing waits to be sent */
		if (!leg->wire && get(duplex, at->state) == lane->open)
			return up(lane, duplex, fd, leg->other);
		if (leg->wire && get(duplex, at->phase) == lane->stream)
			return down(lane, duplex, fd, leg->other);
	}
	if (!send_kept(lane))
		return false;
	lane->slow = true;
	argument = PyLong_FromUnsignedLong(mask);
	if (!argument)
		return false;
	done = PyObject_CallOneArg(leg->handler, argument);
	Py_DECREF(argument);
	Py_XDECREF(done);
	return done != NULL;
}

/* Tell a Duplex of the exception that its step raised: a bug of ours, which ends that connection and no other. */
bool tell(Lane *lane, PyObject *duplex)
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

	clock_gettime(CLOCK_MONOTONIC, &t); /* time.monotonic()'s */
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int milliseconds(double wait)
{
	if (wait == INFINITY)
		return -1;
	if (wait <= 0)
		return 0;
	return wait > 86400 ? 86400 * 1000 : (int)ceil(wait * 1000); /* rounded up, so that what is waited for is due */
}

/* Serve what one wait has told. Returns GUEST and SEEN, or -1 with an exception that is no bug of a step. */
static int serve(Lane *lane, const struct epoll_event *events, int ready)
{
	int answer = ready ? SEEN : 0;

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
			lane->slow = true; /* the engine's own wake-up, or a leg that is gone */
			continue;
		}
		leg = lane->legs[fd]; /* a step may take it from the table */
		Py_INCREF(leg.duplex);
		Py_INCREF(leg.handler);
		done = on_event(lane, &leg, leg.duplex, events[i].events, fd) || tell(lane, leg.duplex);
		Py_DECREF(leg.handler);
		Py_DECREF(leg.duplex);
		if (!done)
			return -1;
	}
	lane->keeping = false;
	return send_kept(lane) ? answer : -1;
}

/* Set the time of the batch under way, for both languages. */
static bool tell_time(Lane *lane, double now)
{
	Py_XSETREF(lane->now, PyFloat_FromDouble(now));
	return lane->now && !PyObject_SetAttr(lane->engine, s_now, lane->now);
}

/* Wait for events. A process that sleeps is woken late, and its processor with it, which on a quiet connection is most of a round
 * trip's time: so where one event came close upon those before, look for the next ones for a moment, letting others run, before
 * going to sleep. Where they are rare, nobody looks; where they are many, there is work enough. */
static int wait_for_events(Lane *lane, struct epoll_event *events, double wait)
{
	int ready = 0, patience = milliseconds(wait);

	if (patience && lane->gap < CLOSE) {
		double until = seconds() + LOOK_FOR;

		do {
			ready = epoll_wait(lane->epoll, events, EVENTS, 0);
			if (!ready)
				sched_yield();
		} while (!ready && seconds() < until);
	}
	return ready ? ready : epoll_wait(lane->epoll, events, EVENTS, patience);
}

int run(Lane *lane, double wait, bool once)
{
	struct epoll_event events[EVENTS];
	double until = wait == INFINITY ? wait : seconds() + wait, now;
	int ready, served, answer = 0;

	lane->slow = lane->keeping = false;
	if (!send_kept(lane)) /* what an interrupt has left */
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
		if (!tell_time(lane, now))
			return -1;
		served = serve(lane, events, ready);
		if (served < 0)
			return -1;
		answer |= served;
		lane->gap = ready == 1 && served == SEEN ? now - lane->last : INFINITY; /* the guest does not count: it is not ours */
		lane->last = now;
		wait = until - now;
	} while (!once && !lane->slow && !(answer & GUEST) && wait > 0);
	return answer;
}
