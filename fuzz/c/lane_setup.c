/* The interpreter of the fuzzer of the fast path, and the start of a run. */
#include "lane_harness.h"

PyMODINIT_FUNC PyInit__lane(void);

Lane *lane;
PyObject *lane_object, *state_open, *state_up_ended, *state_closed, *stream_phase, *ended_phase;
static PyTypeObject *duplex_class, *direction_class;

static const char classes[] =
	"class Duplex:\n"
	"    __slots__ = ('_state', '_phase', '_queued', '_bulk_at', '_plain_ready', '_wire_ready', '_plain_to_end',\n"
	"                 '_wire_to_end', '_sent', '_received', '_active', 'partial', 'plain_left', 'wire_left',\n"
	"                 '_sealer', '_opener')\n"
	"class Direction:\n"
	"    __slots__ = ('_n', '_check_at', '_aead')\n"
	"class Engine:\n"
	"    now = 0.0\n"
	"class State:\n"
	"    OPEN, UP_ENDED, RESETTING, CLOSED = 'open', 'up ended', 'resetting', 'closed'\n"
	"STREAM, ENDED = 'stream', 'ended'\n"
	"source, result = bytearray(SCRATCH), bytearray(RESULT)\n";

void start_python(void)
{
	PyPreConfig before;
	PyConfig config;
	PyObject *module, *names, *run, *arguments;

	PyPreConfig_InitIsolatedConfig(&before);
	before.allocator = PYMEM_ALLOCATOR_MALLOC; /* the sanitizer sees each object */
	CHECK(!PyStatus_Exception(Py_PreInitialize(&before)));
	PyConfig_InitIsolatedConfig(&config);
	config.site_import = 0;
	config.install_signal_handlers = 0;
	PyConfig_SetBytesString(&config, &config.home, PYTHON_HOME);
	PyImport_AppendInittab("_lane", PyInit__lane);
	CHECK(!PyStatus_Exception(Py_InitializeFromConfig(&config)));
	PyConfig_Clear(&config);
	module = PyImport_ImportModule("_lane");
	CHECK(module);
	names = PyDict_New();
	PyDict_SetItemString(names, "SCRATCH", PyLong_FromLong(SCRATCH));
	PyDict_SetItemString(names, "RESULT", PyLong_FromLong(RESULT));
	PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins());
	PyDict_SetItemString(names, "__name__", PyUnicode_FromString("fuzz"));
	run = PyRun_String(classes, Py_file_input, names, names);
	CHECK(run);
	duplex_class = (PyTypeObject *)PyDict_GetItemString(names, "Duplex");
	direction_class = (PyTypeObject *)PyDict_GetItemString(names, "Direction");
	stream_phase = PyDict_GetItemString(names, "STREAM");
	ended_phase = PyDict_GetItemString(names, "ENDED");
	for (PyMethodDef *m = methods; m->ml_name; m++)
		PyObject_SetAttrString((PyObject *)duplex_class, m->ml_name, PyInstanceMethod_New(PyCFunction_New(m, NULL)));
	aead_class = (PyTypeObject *)PyType_FromSpec(&aead_spec);
	run = PyDict_GetItemString(names, "State");
	state_open = PyObject_GetAttrString(run, "OPEN");
	state_up_ended = PyObject_GetAttrString(run, "UP_ENDED");
	state_closed = PyObject_GetAttrString(run, "CLOSED");
	arguments = Py_BuildValue("OiiOOOOOO", PyObject_CallNoArgs(PyDict_GetItemString(names, "Engine")), 0, -1, duplex_class,
				  direction_class, stream_phase, run, PyDict_GetItemString(names, "source"),
				  PyDict_GetItemString(names, "result"));
	lane_object = PyObject_CallObject(PyObject_GetAttrString(module, "Lane"), arguments);
	CHECK(lane_object);
	lane = (Lane *)lane_object;
	for (uint32_t i = 0, state = 1; i < sizeof(text_bytes); i++, state = state * 1664525 + 1013904223)
		text_bytes[i] = (uint8_t)(state >> 24);
}

static PyObject *new_direction(const struct toy_keys *k)
{
	PyObject *direction = PyObject_CallNoArgs((PyObject *)direction_class);

	set_direction(direction, k);
	return direction;
}

static void start_leg(struct leg_io *io)
{
	io->in_at = io->in_end = io->out_end = io->news = 0;
	io->room = byte() & 1 ? amount() : CAPACITY;
	io->eof = false;
	io->error = 0;
}

void start(struct connection *c)
{
	static const uint64_t counters[] = { 0, 1, (1 << 20) - 2, 1 << 20, UINT64_MAX - 2, 5 * (1 << 20) - 1 };
	uint8_t how = byte();
	int fd = FIRST_FD + 2 * (int)(c - all);
	const struct layout *at = &lane->at;
	const struct {
		Py_ssize_t at;
		PyObject *value;
	} values[] = {
		{ at->state, state_open },    { at->phase, stream_phase },    { at->queued, Py_False },      { at->plain_ready, Py_False },
		{ at->wire_ready, Py_False }, { at->plain_to_end, Py_False }, { at->wire_to_end, Py_False }, { at->plain_left, Py_None },
		{ at->wire_left, Py_None },   { at->active, Py_None },
	};

	memset(&c->stream_at, 0, sizeof(*c) - offsetof(struct connection, stream_at));
	c->peer_seals.n = counters[how % 6];
	c->peer_opens.n = counters[how / 6 % 6];
	memset(c->peer_seals.key, 7, TOY_KEY);
	memset(c->peer_opens.key, 8, TOY_KEY);
	start_leg(&c->plain);
	start_leg(&c->wire);
	c->duplex = PyObject_CallNoArgs((PyObject *)duplex_class);
	for (size_t i = 0; i < Py_ARRAY_LENGTH(values); i++)
		set_slot(c->duplex, values[i].at, Py_NewRef(values[i].value));
	set_slot(c->duplex, at->bulk_at, PyFloat_FromDouble(how & 128 ? now : 0));
	set_number(c->duplex, at->sent, 0);
	set_number(c->duplex, at->received, 0);
	set_slot(c->duplex, at->partial, PyBytes_FromStringAndSize(NULL, 0));
	set_slot(c->duplex, at->sealer, new_direction(&c->peer_opens));
	set_slot(c->duplex, at->opener, new_direction(&c->peer_seals));
	for (int wire = 0; wire < 2; wire++) {
		PyObject *self = PyLong_FromLong(fd + wire), *handler = PyCFunction_New(&event_method, self);
		PyObject *done = PyObject_CallMethod(lane_object, "set", "iiOOi", fd + wire, fd + !wire, c->duplex, handler, wire);

		CHECK(done);
		Py_DECREF(self);
		Py_DECREF(handler);
		Py_DECREF(done);
	}
}
