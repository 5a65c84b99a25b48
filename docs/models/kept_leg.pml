/* The life of a wire leg that carries two connections, one after the other (PROTOCOL.md, "Keeping a wire leg"), for the model checker spin.
 *
 * Two connections are carried for one application. Connection 0 uses leg 0. Connection 1 uses leg 0 again when it is idle, and a fresh
 * leg (leg 1, where nothing fails) otherwise, or when leg 0 turns out to be unusable and the rule allows to send again. In each direction a connection
 * carries one byte. Connection 0 may be the one that makes the leg ready: it has no target and no byte. spin tries every interleaving of frames, answers, resets, BYE from either side, and loss of the path.
 *
 * Checked:
 * - no byte is delivered twice, and none to the wrong connection;
 * - an end of stream reaches an application only after every byte before it;
 * - each connection ends for the application: in order, or by a reset. Nobody waits for ever;
 * - the keys of both sides agree at every frame, so honest sides never fail to authenticate.
 *
 * `make model` runs it, and shows that it finds the mutants below: each macro breaks one rule of the section.
 *   RESEND_AFTER_EOF   sends application bytes again after an end of stream without BYE
 *   ACT_AFTER_BYE      acts on an OPEN that arrives after its own BYE
 *   NO_REKEY           the responder keeps the old key at the boundary
 *   FORGET_FIN         takes the end of the stream for an end in order, without FIN
 *   KEEP_AFTER_EOF     opens the next connection on a leg whose incoming stream has ended, and waits for an answer
 */

#define LEGS 2
#define FRAMES 10 /* more than one side sends on one leg: a send never waits */

mtype = { OPEN, ACCEPT, REJECT, DATA, FIN, RESET, BYE, EOF_ };
mtype = { PENDING, IN_ORDER, CUT };

/* A frame: its type, the connection that it belongs to (for the checks alone; the wire does not carry it), and the number of its key. */
chan up[LEGS] = [FRAMES] of { mtype, byte, byte };
chan down[LEGS] = [FRAMES] of { mtype, byte, byte };

bool keep; /* both sides agreed to keep a leg */
bool ready; /* connection 0 makes the leg ready */
#define EMPTY(connection) (ready && connection == 0)
bool lost[LEGS]; /* the path is gone: either side may notice, and frames on the way may be dropped */

byte to_target[2]; /* bytes of a connection that reached a target */
byte to_client[2]; /* bytes of a connection that reached the client */
mtype client[2]; /* how the connection ended for the client */
byte targets; /* target connections that are open */

proctype Initiator()
{
    byte leg, connection, frame_of, key, send_key, receive_key;
    bool again; /* this is a later connection of the leg */
    bool early; /* bytes may go with OPEN */
    bool resets; /* the application may reset the connection */
    bool accepted, sent, fin_sent, fin_received, eof;

open:
    atomic {
        if
        :: again -> send_key++
        :: else
        fi;
        if
        :: early = true
        :: early = false
        fi;
        if
        :: leg == 0 -> resets = true
        :: resets = false
        fi;
        accepted = false; sent = false; fin_sent = false; fin_received = false;
        client[connection] = PENDING;
        up[leg] ! OPEN, connection, send_key
    }
    do
    /* What the application and its proxy do. */
    :: atomic { !sent && !EMPTY(connection) && (early || accepted) -> up[leg] ! DATA, connection, send_key; sent = true }
    :: atomic { (sent || EMPTY(connection)) && !fin_sent -> up[leg] ! FIN, connection, send_key; fin_sent = true;
            if
            :: fin_received -> goto ended
            :: else
            fi }
    :: atomic { resets -> up[leg] ! RESET, connection, send_key; up[leg] ! EOF_, 0, 0; client[connection] = CUT; goto closed }
    :: atomic { resets && again && !accepted && !sent -> /* no answer in time: another leg, nothing of this connection is held here */
            up[leg] ! RESET, connection, send_key; up[leg] ! EOF_, 0, 0; goto retry }

    /* What arrives. */
    :: atomic { down[leg] ? ACCEPT, frame_of, key ->
            assert(!accepted && frame_of == connection);
            receive_key = receive_key + again; accepted = true; assert(key == receive_key) }
    :: atomic { down[leg] ? REJECT, frame_of, key ->
            assert(!accepted && frame_of == connection);
            receive_key = receive_key + again; assert(key == receive_key);
            up[leg] ! EOF_, 0, 0; client[connection] = CUT; goto closed }
    :: atomic { down[leg] ? DATA, frame_of, key ->
            assert(accepted && !fin_received && frame_of == connection && key == receive_key);
            to_client[connection]++; assert(to_client[connection] == 1) }
    :: atomic { down[leg] ? FIN, frame_of, key ->
            assert(accepted && !fin_received && frame_of == connection && key == receive_key);
            assert(to_client[connection] == 1 - EMPTY(connection)); fin_received = true;
            if
            :: fin_sent -> goto ended
            :: else
            fi }
    :: atomic { down[leg] ? RESET, frame_of, key ->
            assert(key == receive_key);
            up[leg] ! EOF_, 0, 0;
            if
            :: accepted -> assert(frame_of == connection); client[connection] = CUT; goto closed
            :: else -> assert(again && frame_of == 0 && to_target[connection] == 0); goto retry /* of connection 0: as BYE */
            fi }
    :: atomic { down[leg] ? BYE, frame_of, key ->
            assert(again && !accepted && key == receive_key); /* it crossed our OPEN */
            assert(to_target[connection] == 0);
            up[leg] ! EOF_, 0, 0; goto retry }
    :: atomic { !eof && down[leg] ? [EOF_, 0, 0] -> down[leg] ? EOF_, frame_of, key; eof = true;
            if
            :: fin_received -> skip /* the peer has nothing more to say; ours goes on */
            :: else ->
#ifdef FORGET_FIN
                if
                :: accepted -> assert(to_client[connection] == 1); client[connection] = IN_ORDER; goto closed
                :: else
                fi;
#endif
                up[leg] ! EOF_, 0, 0; goto unanswered
            fi }
    :: atomic { lost[leg] -> goto unanswered }
    od;
ended: /* both FINs: over in order */
    client[connection] = IN_ORDER;
    if
    :: atomic { keep && connection == 0 && !lost[leg] && (!eof
#ifdef KEEP_AFTER_EOF
            || true
#endif
        ) -> skip }
    :: atomic { else -> up[leg] ! EOF_, 0, 0; goto closed }
    fi;

    /* Idle. */
    do
    :: atomic { connection = 1; again = true; goto open }
    :: atomic { up[leg] ! BYE, 0, send_key; up[leg] ! EOF_, 0, 0; goto closed } /* from here on it reads nothing of this leg */
    :: atomic { down[leg] ? BYE, frame_of, key -> assert(key == receive_key); up[leg] ! EOF_, 0, 0; goto closed }
    :: atomic { down[leg] ? RESET, frame_of, key -> up[leg] ! EOF_, 0, 0; goto closed } /* it crossed our FIN */
#ifndef KEEP_AFTER_EOF
    :: atomic { down[leg] ? EOF_, frame_of, key -> up[leg] ! EOF_, 0, 0; goto closed }
#endif
    :: atomic { lost[leg] -> goto closed }
    od;

unanswered: /* the leg ended without BYE */
    atomic {
        if
        :: again && !accepted && (!sent
#ifdef RESEND_AFTER_EOF
            || true
#endif
            ) -> goto retry
        :: else -> client[connection] = CUT; goto closed
        fi
    }
retry: /* the same connection on a fresh leg */
    atomic { leg = 1; again = false; eof = false; send_key = 0; receive_key = 0; goto open }
closed: /* the next connection on a fresh leg, unless the first one was cut: that order of events is one of a single connection */
    atomic {
        if
        :: connection == 0 && (client[0] == IN_ORDER || ready) -> connection = 1; leg = 1; again = false; eof = false; send_key = 0; receive_key = 0; goto open
        :: else
        fi
    }
    skip
}

proctype Responder(byte leg)
{
    byte connection, frame_of, key, send_key, receive_key;
    bool again, sent, fin_sent, fin_received, eof, left;
    bool fails; /* the target may reset the connection, or the process may be killed */

end_new: /* a leg that nobody opened ends here */
    atomic {
        if
        :: up[leg] ? OPEN, connection, key
        :: lost[leg] -> goto over
        fi;
        assert(key == receive_key)
    }
opened:
    atomic {
        sent = false; fin_sent = false; fin_received = false;
        if
        :: leg == 0 -> fails = true
        :: fails = false
        fi;
#ifndef NO_REKEY
        send_key = send_key + again;
#endif
        if
        :: down[leg] ! REJECT, connection, send_key; down[leg] ! EOF_, 0, 0; goto over
        :: lost[leg] -> goto over /* before the target was dialled */
        :: down[leg] ! ACCEPT, connection, send_key; targets = targets + 1 - EMPTY(connection)
        fi
    }
    do
    /* What the target does. */
    :: atomic { !sent && !EMPTY(connection) -> down[leg] ! DATA, connection, send_key; sent = true }
    :: atomic { (sent || EMPTY(connection)) && !fin_sent -> down[leg] ! FIN, connection, send_key; fin_sent = true;
            if
            :: fin_received -> goto ended
            :: else
            fi }
    :: atomic { fails -> down[leg] ! EOF_, 0, 0; targets = targets - 1 + EMPTY(connection); goto over } /* killed: the kernel closes the leg */
    :: atomic { fails -> down[leg] ! RESET, connection, send_key; down[leg] ! EOF_, 0, 0; targets = targets - 1 + EMPTY(connection); goto over }

    /* What arrives. */
    :: atomic { up[leg] ? DATA, frame_of, key ->
            assert(!fin_received && frame_of == connection && key == receive_key);
            to_target[connection]++; assert(to_target[connection] == 1) }
    :: atomic { up[leg] ? FIN, frame_of, key ->
            assert(!fin_received && frame_of == connection && key == receive_key);
            assert(to_target[connection] == 1 - EMPTY(connection)); fin_received = true; /* the target reads EOF */
            if
            :: fin_sent -> goto ended
            :: else
            fi }
    :: atomic { up[leg] ? RESET, frame_of, key ->
            assert(frame_of == connection && key == receive_key); down[leg] ! EOF_, 0, 0; targets = targets - 1 + EMPTY(connection); goto over }
    :: atomic { !eof && up[leg] ? [EOF_, 0, 0] -> up[leg] ? EOF_, frame_of, key; eof = true;
            if
            :: fin_received -> skip
            :: else -> down[leg] ! EOF_, 0, 0; targets = targets - 1 + EMPTY(connection); goto over /* truncated: the target is reset */
            fi }
    :: atomic { lost[leg] -> targets = targets - 1 + EMPTY(connection); goto over }
    od;
ended: /* both FINs: over in order */
    targets = targets - 1 + EMPTY(connection);
    if
    :: atomic { keep && !eof && !lost[leg] -> skip }
    :: atomic { else -> down[leg] ! EOF_, 0, 0; goto over }
    fi;

    /* Idle. */
    do
    :: atomic { up[leg] ? [OPEN, connection, key] -> up[leg] ? OPEN, connection, key;
            receive_key++; assert(key == receive_key); again = true; goto opened }
    :: atomic { up[leg] ? BYE, frame_of, key -> assert(left || key == receive_key); down[leg] ! EOF_, 0, 0; goto over }
    :: atomic { up[leg] ? EOF_, frame_of, key -> down[leg] ! EOF_, 0, 0; goto over }
    :: atomic { lost[leg] -> goto over }
    :: atomic { !left -> down[leg] ! BYE, 0, send_key; down[leg] ! EOF_, 0, 0; left = true;
#ifndef ACT_AFTER_BYE
            goto over /* from here on it reads nothing of this leg */
#endif
        }
    od;
over:
    skip
}

/* The path of leg 0 may fail at any time, once. */
proctype Path(byte leg)
{
end_path:
    atomic { lost[leg] = true }
}

init {
    atomic {
        if
        :: keep = true
        :: keep = false
        fi;
        if
        :: ready = true
        :: ready = false
        fi;
        run Initiator();
        run Responder(0);
        run Responder(1);
        if
        :: run Path(0)
        :: skip
        fi
    }
    timeout -> /* nobody can do anything more */
    assert(targets == 0 && client[0] != PENDING && client[1] != PENDING)
}
