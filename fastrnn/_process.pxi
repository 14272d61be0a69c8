# Included by _core.pyx: threads, instruction sets, what this build is, and what tests and benchmarks look at.

def set_num_threads(int n):
    fastrnn_set_num_threads(n)


def get_num_threads():
    return fastrnn_get_num_threads()


cdef tuple built(bint only_here):
    names = []
    cdef int i = 0
    while fastrnn_built[i] != NULL:
        if not only_here or fastrnn_runs_here(fastrnn_built[i]):
            names.append(fastrnn_built[i].name.decode())
        i += 1
    return tuple(names)


def available_isas():
    return built(True)


def get_isa():
    return fastrnn_kernels_in_use().name.decode()


def set_isa(str name not None):
    if fastrnn_use(name.encode()) != 0:
        raise ValueError(f"name: expected one of {available_isas()} on this machine, got {name!r}")


def build_info():
    return {
        "compiler": FASTRNN_COMPILER.decode(),
        "machine": platform.machine(),
        "openmp": bool(fastrnn_has_openmp()),
        "isas_built": built(False),
    }


# ---------------------------------------------------------------------- private: for tests and benchmarks

def tanh(cnp.ndarray x not None, cnp.ndarray out not None):
    fastrnn_kernels_in_use().tanh[is_double(x)](data(x), data(out), cnp.PyArray_SIZE(x))


def exp(cnp.ndarray x not None, cnp.ndarray out not None):
    fastrnn_kernels_in_use().exp[is_double(x)](data(x), data(out), cnp.PyArray_SIZE(x))


def cpu_quota(str root not None):
    return fastrnn_cpu_quota(root.encode())


def swap_team_policy(double fork_join, double wake):
    fastrnn_swap_team_policy(&fork_join, &wake)
    return fork_join, wake


def swap_far(double bytes_):
    return fastrnn_swap_far(bytes_)


WAYS = {
    FASTRNN_BY_ROWS: "by rows", FASTRNN_BY_UNITS: "by units", FASTRNN_PIPELINE: "pipeline",
    FASTRNN_CONCURRENT: "concurrent",
}


def last_plan():
    """How this thread's last call of directions was run."""
    cdef fastrnn_plan plan = fastrnn_last_plan()
    return {
        "way": WAYS[plan.way], "threads": plan.threads, "rows": plan.rows, "steps": plan.steps, "blocks": plan.blocks,
        "packed": bool(plan.packed),
    }


PLACES = {
    "before meeting": FASTRNN_BEFORE_MEETING, "after meeting": FASTRNN_AFTER_MEETING, "after count": FASTRNN_AFTER_COUNT,
    "poll": FASTRNN_POLL, "stop": FASTRNN_STOP, "in scratch": FASTRNN_IN_SCRATCH,
    "before job": FASTRNN_BEFORE_JOB, "after job": FASTRNN_AFTER_JOB, "before sleep": FASTRNN_BEFORE_SLEEP,
}


def set_delays(*delays):
    """Make threads late: (place, thread, nth, seconds) each."""
    cdef fastrnn_delay[16] given
    if len(delays) > 16:
        raise ValueError("a schedule has 16 delays at most")
    for i, (place, thread, nth, seconds) in enumerate(delays):
        given[i].place, given[i].thread, given[i].nth = PLACES[place], thread, nth
        given[i].microseconds = <int64_t>(seconds * 1e6)
    fastrnn_set_delays(given, len(delays))


def delays():
    """How many of the delays have begun and ended."""
    cdef int begun, ended
    fastrnn_delays(&begun, &ended)
    return begun, ended


def teams_run():
    return fastrnn_teams_run()


cdef class Company:
    """One of its own, to be told of a machine that only a test knows."""
    cdef company seen

    def allows(self, int wanted, double time):
        return company_allows(&self.seen, wanted, time)

    def saw(self, int threads, double wall, double lost, double time):
        company_saw(&self.seen, threads, wall, lost, time)


def workers_made():
    return fastrnn_workers_made()


def fma_peak(double seconds, bint dtype_is_double):
    cdef double rate
    with nogil:
        rate = fastrnn_multiply_add_rate(dtype_is_double, seconds)
    return rate / 1e9


def read_peak(double seconds, bint dtype_is_double, int64_t bytes):
    cdef double rate
    if bytes < 1:
        raise ValueError(f"bytes is {bytes}: at least 1 is needed")
    with nogil:
        rate = fastrnn_read_rate(dtype_is_double, seconds, bytes)
    if rate == 0:
        raise MemoryError(f"no memory for {bytes} bytes")
    return rate / 1e9
