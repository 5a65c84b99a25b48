/* The fast path of the user-space engine: it moves DATA frames from one leg to the other without the interpreter.
 *
 * pump.py drives the engine, and Duplex with its base classes holds the rules of a connection. The code here has no rules of its own.
 * It waits in the engine's epoll set. For a leg that has bytes to read, and no end or error, it does the work of
 * PlainToWire._up or WireToPlain._down: one recv into the shared scratch, one call of the cipher for each frame, one send.
 * It calls a method of the Duplex, with the scratch unchanged, for every other case: the end of a stream, an error, a frame that is
 * not DATA, a rekey, a short write. Without this extension the engine does the same, more slowly.
 *
 * Invariants:
 * - All state belongs to the Python objects. Each step reads and writes their slots, at the offsets that the classes report
 *   (offset_of). Nothing is cached here. lane_init refuses a class without the expected slots.
 * - The cipher is the one of `cryptography`: encrypt_into and decrypt_into, called as from Python. A Span tells them where in the
 *   scratch a frame is. This code never reads a key.
 * - Everything but the wait runs under the GIL.
 *
 * lane.c        the type Lane, and the module
 * event_loop.c  wait for events and serve them
 * batch.c       send the small writes of one batch of events together
 * transfer.c    move one buffer from one leg to the other
 * attributes.c  read and write attributes of Python objects, call their methods
 * span.c        a buffer object whose start and size can be changed
 */
#include "lane.h"

PyDoc_STRVAR(run_doc, "run(wait, once)\n--\n\n"
		      "Relay until the engine has other work to do, or the time is over.\n\n"
		      "Args:\n    wait: seconds; None is no limit.\n    once: return after the first wait.\n\n"
		      "Returns:\n    GUEST if the guest descriptor is ready, plus SEEN if there was any event.");

static PyObject *lane_run(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	double wait = INFINITY;
	int once, answer;

	if (count != 2) {
		PyErr_SetString(PyExc_TypeError, "run() takes 2 arguments");
		return NULL;
	}
	if (args[0] != Py_None)
		wait = PyFloat_AsDouble(args[0]);
	once = PyObject_IsTrue(args[1]);
	if (PyErr_Occurred())
		return NULL;
	answer = run((Lane *)self, wait, once);
	return answer < 0 ? NULL : PyLong_FromLong(answer);
}

PyDoc_STRVAR(set_doc,
	     "set(fd, other, duplex, handler, wire)\n--\n\n"
	     "Add a leg of a Duplex: its descriptor, the other leg's, the method for other events, and whether it is the wire leg.\n"
	     "With -1 for the other leg, add a descriptor that is no leg: `duplex` is its owner, and the method gets every event.");

static PyObject *lane_set(PyObject *self, PyObject *args)
{
	Lane *lane = (Lane *)self;
	struct leg leg;
	int fd, wire;

	if (!PyArg_ParseTuple(args, "iiOOp", &fd, &leg.other, &leg.duplex, &leg.handler, &wire))
		return NULL;
	leg.wire = wire;
	if (fd < 0 || leg.other < -1 || (leg.other >= 0) != (Py_TYPE(leg.duplex) == lane->duplex_type)) {
		PyErr_SetString(PyExc_ValueError, "not a leg of a Duplex");
		return NULL;
	}
	if (fd >= lane->room) {
		int room = fd < 1024 ? 2048 : 2 * fd;
		struct leg *legs = PyMem_Realloc(lane->legs, (size_t)room * sizeof(*legs));

		if (!legs)
			return PyErr_NoMemory();
		memset(legs + lane->room, 0, (size_t)(room - lane->room) * sizeof(*legs));
		lane->legs = legs;
		lane->room = room;
	}
	Py_INCREF(leg.duplex);
	Py_INCREF(leg.handler);
	Py_XDECREF(lane->legs[fd].duplex);
	Py_XDECREF(lane->legs[fd].handler);
	lane->legs[fd] = leg;
	Py_RETURN_NONE;
}

typedef bool (*step_fn)(Lane *lane, PyObject *duplex, int from, int to);

static PyObject *step(PyObject *self, PyObject *const *args, Py_ssize_t count, step_fn way)
{
	Lane *lane = (Lane *)self;
	int from, to;
	bool keeping = lane->keeping, done;

	if (count != 3 || Py_TYPE(args[0]) != lane->duplex_type) {
		PyErr_SetString(PyExc_TypeError, "a Duplex and two descriptors are needed");
		return NULL;
	}
	from = (int)PyLong_AsLong(args[1]);
	to = (int)PyLong_AsLong(args[2]);
	if (PyErr_Occurred())
		return NULL;
	lane->keeping = false; /* Python may send on the same connection right after this */
	done = way(lane, args[0], from, to);
	lane->keeping = keeping;
	return done ? Py_NewRef(Py_None) : NULL;
}

PyDoc_STRVAR(up_doc, "up(duplex, plain, wire)\n--\n\n"
		     "Do the work of PlainToWire._up, by descriptors. The wire leg has nothing left to send.");

static PyObject *lane_up(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return step(self, args, count, up);
}

PyDoc_STRVAR(down_doc, "down(duplex, wire, plain)\n--\n\n"
		       "Do the work of WireToPlain._down while DATA may come. The plain leg has nothing left to send.");

static PyObject *lane_down(PyObject *self, PyObject *const *args, Py_ssize_t count)
{
	return step(self, args, count, down);
}

static void drop_leg(struct leg *leg)
{
	Py_CLEAR(leg->duplex);
	Py_CLEAR(leg->handler);
}

PyDoc_STRVAR(forget_doc, "forget(fd)\n--\n\nAct on no further event of this descriptor.");

static PyObject *lane_forget(PyObject *self, PyObject *argument)
{
	Lane *lane = (Lane *)self;
	long fd = PyLong_AsLong(argument);

	if (fd == -1 && PyErr_Occurred())
		return NULL;
	if (fd >= 0 && fd < lane->room)
		drop_leg(&lane->legs[fd]);
	Py_RETURN_NONE;
}

static int lane_init(PyObject *self, PyObject *args, PyObject *kwargs)
{
	Lane *lane = (Lane *)self;
	PyObject *engine, *duplex, *direction, *stream, *states, *source, *result;
	int epoll, guest;

	if (kwargs && PyDict_GET_SIZE(kwargs)) {
		PyErr_SetString(PyExc_TypeError, "Lane() takes no keyword arguments");
		return -1;
	}
	if (lane->engine) {
		PyErr_SetString(PyExc_TypeError, "a Lane is made once");
		return -1;
	}
	if (!PyArg_ParseTuple(args, "OiiO!O!OOOO", &engine, &epoll, &guest, &PyType_Type, &duplex, &PyType_Type, &direction, &stream,
			      &states, &source, &result))
		return -1;
	if (!find_slots(&lane->at, (PyTypeObject *)duplex, (PyTypeObject *)direction))
		return -1;
	if (PyObject_GetBuffer(source, &lane->source, PyBUF_WRITABLE) || PyObject_GetBuffer(result, &lane->result, PyBUF_WRITABLE))
		return -1;
	if (lane->source.len < MAX_FRAME ||
	    lane->result.len < lane->source.len + (lane->source.len + MAX_PLAINTEXT - 1) / MAX_PLAINTEXT * OVERHEAD) {
		PyErr_SetString(PyExc_ValueError, "the scratch is too small");
		return -1;
	}
	lane->nonce = span_new(lane->nonce_bytes, NONCE_LEN);
	lane->header = span_new(NULL, HEADER_LEN);
	lane->input = span_new(NULL, 0);
	lane->output = span_new(NULL, 0);
	if (!lane->nonce || !lane->header || !lane->input || !lane->output)
		return -1;
	lane->read_size = lane->source.len;
	lane->small_gap = SHARED_FOR;
	lane->found = 1;
	lane->epoll = epoll;
	lane->guest = guest;
	lane->duplex_type = (PyTypeObject *)Py_NewRef(duplex);
	lane->stream = Py_NewRef(stream);
	lane->open = PyObject_GetAttrString(states, "OPEN");
	lane->resetting = PyObject_GetAttrString(states, "RESETTING");
	lane->closed = PyObject_GetAttrString(states, "CLOSED");
	if (!lane->open || !lane->resetting || !lane->closed)
		return -1;
	lane->engine = Py_NewRef(engine);
	return 0;
}

static int lane_traverse(PyObject *self, visitproc visit, void *arg)
{
	Lane *lane = (Lane *)self;

	Py_VISIT(lane->engine);
	Py_VISIT(lane->duplex_type);
	Py_VISIT(lane->stream);
	Py_VISIT(lane->open);
	Py_VISIT(lane->resetting);
	Py_VISIT(lane->closed);
	for (int i = 0; i < lane->room; i++) {
		Py_VISIT(lane->legs[i].duplex);
		Py_VISIT(lane->legs[i].handler);
	}
	return 0;
}

static int lane_clear(PyObject *self)
{
	Lane *lane = (Lane *)self;

	for (int i = 0; i < lane->room; i++)
		drop_leg(&lane->legs[i]);
	while (lane->kept > 0)
		Py_CLEAR(lane->writes[--lane->kept].duplex);
	Py_CLEAR(lane->engine);
	return 0;
}

static void lane_dealloc(PyObject *self)
{
	Lane *lane = (Lane *)self;

	PyObject_GC_UnTrack(self);
	lane_clear(self);
	PyMem_Free(lane->legs);
	Py_CLEAR(lane->duplex_type);
	Py_CLEAR(lane->stream);
	Py_CLEAR(lane->open);
	Py_CLEAR(lane->resetting);
	Py_CLEAR(lane->closed);
	Py_CLEAR(lane->now);
	Py_CLEAR(lane->nonce);
	Py_CLEAR(lane->header);
	Py_CLEAR(lane->input);
	Py_CLEAR(lane->output);
	PyBuffer_Release(&lane->source);
	PyBuffer_Release(&lane->result);
	Py_TYPE(self)->tp_free(self);
}

static PyMethodDef lane_methods[] = {
	{ "run", (PyCFunction)(void (*)(void))lane_run, METH_FASTCALL, run_doc },
	{ "up", (PyCFunction)(void (*)(void))lane_up, METH_FASTCALL, up_doc },
	{ "down", (PyCFunction)(void (*)(void))lane_down, METH_FASTCALL, down_doc },
	{ "set", lane_set, METH_VARARGS, set_doc },
	{ "forget", lane_forget, METH_O, forget_doc },
	{ NULL, NULL, 0, NULL },
};

static PyMemberDef lane_members[] = {
	{ "guest", T_INT, offsetof(Lane, guest), 0, "descriptor to report, or -1" },
	{ "read_size", T_PYSSIZET, offsetof(Lane, read_size), 0, "most bytes of one read" },
	{ "small_at", T_DOUBLE, offsetof(Lane, small_at), 0, "time of the last small read, seconds" },
	{ "small_gap", T_DOUBLE, offsetof(Lane, small_gap), 0, "mean time between two small reads, seconds" },
	{ "gap", T_DOUBLE, offsetof(Lane, gap), 0, "seconds between the last two batches; infinite where the last one is no sign of more" },
	{ "found", T_DOUBLE, offsetof(Lane, found), 0, "share of the last polls that found an event" },
	{ NULL, 0, 0, 0, NULL },
};

PyDoc_STRVAR(lane_doc, "Lane(engine, epoll, guest, duplex_type, direction_type, stream, states, source, result)\n--\n\n"
		       "Waits in an engine's epoll set and moves DATA frames between the legs of its connections.");

static PyTypeObject LaneType = {
	/* clang-format off */ /* the macro below ends in a comma */
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "stcp_proxy.relay._lane.Lane",
	/* clang-format on */
	.tp_doc = lane_doc,
	.tp_basicsize = sizeof(Lane),
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_new = PyType_GenericNew,
	.tp_init = lane_init,
	.tp_dealloc = lane_dealloc,
	.tp_traverse = lane_traverse,
	.tp_clear = lane_clear,
	.tp_methods = lane_methods,
	.tp_members = lane_members,
};

static struct PyModuleDef module = {
	PyModuleDef_HEAD_INIT,
	.m_name = "stcp_proxy.relay._lane",
	.m_doc = "The fast path of the user-space engine.",
	.m_size = -1,
};

PyMODINIT_FUNC PyInit__lane(void)
{
	PyObject *made;

	if (!make_names() || PyType_Ready(&SpanType) || PyType_Ready(&LaneType))
		return NULL;
	made = PyModule_Create(&module);
	if (!made)
		return NULL;
	if (PyModule_AddObjectRef(made, "Lane", (PyObject *)&LaneType) || PyModule_AddIntMacro(made, GUEST) ||
	    PyModule_AddIntMacro(made, SEEN) || PyModule_AddIntMacro(made, HEADER_LEN) || PyModule_AddIntMacro(made, TAG_LEN) ||
	    PyModule_AddIntMacro(made, NONCE_LEN) || PyModule_AddIntMacro(made, MAX_FRAME) || PyModule_AddIntMacro(made, MAX_LENGTH) ||
	    PyModule_AddIntMacro(made, MAX_PLAINTEXT) || PyModule_AddIntMacro(made, FRAMES_PER_TURN) || PyModule_AddIntMacro(made, SMALL) ||
	    PyModule_AddIntMacro(made, SHARED_READ) || PyModule_AddIntMacro(made, WEIGHT)) {
		Py_DECREF(made);
		return NULL;
	}
	return made;
}
