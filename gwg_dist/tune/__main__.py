from gwg_dist.tune.cli import main

if __name__ == "__main__":
    main()
