/* A cuBLASLt that offers several algorithms for a product, some slow, some of which it refuses or fails to run: its
 * functions stand before the real ones, in a program that links pretend_products.c (test_products) or through
 * LD_PRELOAD, where PRETEND_PRODUCTS="offers=3 fast=1" fills in this struct (PRETEND_PRODUCTS_1 on rank 1) and
 * PRETEND_PRODUCTS_COUNTS=FILE has FILE.RANK written at the end: how often offers 0, 1 and 2 ran. */
#ifndef QUEST_TESTS_CUDA_PRETEND_PRODUCTS_H
#define QUEST_TESTS_CUDA_PRETEND_PRODUCTS_H

#include <cublasLt.h>
#include <stdbool.h>

/* Offer i multiplies everything by 1 + i / 64, which tells whose result it is: exactly, where the numbers are small
 * whole ones. */
#define PRETENDED_SCALE(offer) (1.0f + (float)(offer) / 64.0f)

/* Of what waits: longer than a product of any test takes in the simulator, with its --jitter too. */
#define PRETENDED_WAIT_S 0.04

struct pretended_products {
    int offers;  /* for every product, all made of the library's first one; 0: what it really offers */
    int nothing; /* 1: none at all */
    int fast;    /* the other offers wait; -1: none waits */
    int epilogues_wait;
    int wait_ms;     /* 0: PRETENDED_WAIT_S */
    int refuse;      /* bit i: offer i is refused, with refuse_with */
    int refuse_with; /* cublasStatus_t */
    int refuse_from; /* from this call of cublasLtMatmul on, counted from 1; 0: always */
    int fail_at;     /* this call of cublasLtMatmul fails, with fail_with; 0: none */
    int fail_with;

    /* Counted: */
    int asked, calls, general; /* heuristics, cublasLtMatmul, cublasGemmEx */
    int runs[16];              /* of each offer */
};
extern struct pretended_products pretended;

#endif
