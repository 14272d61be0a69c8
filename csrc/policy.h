/* What teams ask of the policy of their sizes, and tell it. */
#ifndef FASTRNN_POLICY_H
#define FASTRNN_POLICY_H
struct workers_job;

/* Whether team_meets_apart is to look where threads run; not in tests that make it look as if they ran apart. */
int policy_looks_where(void);
/* A team of n threads has ended a job of so many operations. */
void policy_saw(int n, double flops, const struct workers_job *job);
#endif
