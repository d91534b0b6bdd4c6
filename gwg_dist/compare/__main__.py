from gwg_dist.compare.cli import main

if __name__ == "__main__":
    main()
